"""What a student's notebook does on Colab, without Colab: alone in an empty folder, it installs its own library.

The very cell a student runs is run. A stub stands for the module ``google.colab``, and git fetches the repository's
address from a clone on this machine instead of from the internet.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from course_lib import pairs

ROOT = Path(__file__).parent.parent
CHAPTERS = [p for p in pairs.sources([ROOT / "notebooks"]) if p.parent.name == "notebooks"]


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The environment of a machine like Colab's: every package but course_lib is there, and git knows our address."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path_factory.mktemp("colab")
    clone = folder / "clone"
    shutil.copytree(ROOT / "course_lib", clone / "course_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone / name)
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "The library"]):
        subprocess.run([*git, *command], cwd=clone, check=True)

    # an environment of its own, which sees this one's packages but not its editable course_lib
    packages = folder / "packages"
    packages.mkdir()
    here = Path(sysconfig.get_paths()["purelib"])
    for entry in here.iterdir():
        if not entry.name.startswith(("course_lib", "__editable__", "_virtualenv", "_uv", "__pycache__", "pip")):
            (packages / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    (stub := folder / "stub" / "google" / "colab").mkdir(parents=True)
    (stub / "__init__.py").write_text("")
    (stub.parent / "__init__.py").write_text("")

    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("COURSE_", "PYTEST_", "PIP_"))},
        "PYTHONPATH": os.pathsep.join(map(str, (folder / "stub", packages))),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": url,
        "GIT_ALLOW_PROTOCOL": "file",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this flag the wrong way round: 0 switches isolation off
        "PIP_NO_DEPS": "1",
        "COURSE_PROFILE": "quick",
        "COURSE_UNATTENDED": "1",
    }
    return folder, python, environment


def run_alone(colab, cells, tmp_path):
    """Execute cells in that environment, in an empty folder; returns what each has printed."""
    _, python, environment = colab
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(
        f'{{"argv": ["{python}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        ' "display_name": "Python 3", "language": "python"}'
    )
    (empty := tmp_path / "empty").mkdir()
    before = os.environ.copy()
    os.environ["JUPYTER_PATH"] = str(tmp_path / "jupyter")
    alone = nbformat.v4.new_notebook(cells=cells)
    try:
        client = NotebookClient(alone, timeout=300, resources={"metadata": {"path": str(empty)}})
        client.execute(env=environment)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return ["".join(o.get("text", "") for o in cell.outputs) for cell in alone.cells]


PROBE = "import course_lib; print(course_lib.__file__)"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_installs_its_library_alone_in_an_empty_folder(colab, chapter, tmp_path):
    notebook = nbformat.read(chapter.with_suffix(".ipynb"), as_version=4)
    install, setup = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    assert "google.colab" in install.source and "notebook.setup" in setup.source
    printed = run_alone(colab, [install, setup, new_code_cell(PROBE)], tmp_path)
    assert str(colab[0] / "venv") in printed[2], "the notebook imported another course_lib than the one it installed"
    assert "quick profile" in printed[1]


def test_an_exercise_installs_what_tells_right_from_wrong(colab, tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / "exercises" / "02_autoencoders.ipynb", as_version=4)
    install, setup, *rest = [cell for cell in notebook.cells if cell.cell_type == "code"]
    (check,) = [cell for cell in rest if cell.metadata.get("grade", {}).get("part") == "2.6"]
    answer = new_code_cell("def score(x_tilde, denoised_x, sigma):\n    return (denoised_x - x_tilde) / sigma**2")
    printed = run_alone(colab, [install, setup, answer, check, new_code_cell(PROBE)], tmp_path)
    assert str(colab[0] / "venv") in printed[4] and printed[3].startswith("✓ 2.6")
