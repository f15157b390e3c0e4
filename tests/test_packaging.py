"""Three lists of dependencies, one truth."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK_LINES = (ROOT / "requirements.txt").read_text().splitlines()
CONDA_NAMES = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}


def wanted() -> list[Requirement]:
    return [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"]]]


def locked() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in LOCK_LINES:
        requirement = Requirement(line)
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("line", LOCK_LINES)
def test_the_lock_has_one_exact_version_a_line_and_no_address(line):
    requirement = Requirement(line)
    assert requirement.url is None and "://" not in line and not line.startswith("-")
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("requirement", wanted(), ids=lambda r: r.name)
def test_the_lock_satisfies_the_package(requirement, python):
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    versions = [
        next(iter(entry.specifier)).version
        for entry in locked()[canonicalize_name(requirement.name)]
        if entry.marker is None or Marker(str(entry.marker)).evaluate(environment)
    ]
    assert len(versions) == 1
    assert requirement.specifier.contains(versions[0])


def test_torch_and_torchvision_are_a_pair_that_works():
    versions = {name: str(locked()[name][0].specifier) for name in ("torch", "torchvision")}
    assert versions == {"torch": "==2.12.1", "torchvision": "==0.27.1"}


def test_the_library_only_sets_lower_bounds():
    for line in PROJECT["dependencies"]:
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[\d.]+", line), line


def test_conda_has_the_same_packages_and_bounds():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["-e .[book,test]"]
    listed = {}
    for line in conda:
        name, _, version = line.partition(">=")
        if name.split("=")[0] not in ("python", "pip"):
            listed[CONDA_NAMES.get(name, name)] = version
    assert listed == {r.name: str(r.specifier).removeprefix(">=") for r in map(Requirement, PROJECT["dependencies"])}


def test_every_import_is_declared():
    declared = {canonicalize_name(r.name) for r in wanted()}
    # what comes with a declared package, as its public face
    declared |= {"ipython", "nbformat", "pyyaml", "packaging", "jupyter-client", "pyzmq"}
    own = {"course_lib", "google"} | {p.stem for p in (ROOT / "tests").rglob("*.py")}  # google: only on Colab
    distributions = packages_distributions()
    for path in [*(ROOT / "course_lib").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / ".ci" / "address.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in {n.split(".")[0] for n in names} - set(sys.stdlib_module_names) - own:
                owners = {canonicalize_name(d) for d in distributions.get(name, [])}
                assert owners & declared, (
                    f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not declare"
                )


def test_the_package_ships_its_drawings_and_released_exercises():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["course_lib"]
    shipped = {p for pattern in data for p in (ROOT / "course_lib").glob(pattern)}
    wanted = {p for name in ("drawings", "grading/public") for p in (ROOT / "course_lib" / name).iterdir()}
    assert shipped and shipped == wanted
