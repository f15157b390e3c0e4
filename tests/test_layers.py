"""The house: a room imports only from floors below it, and some packages have one door only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "course_lib"

FLOORS = {
    0: {"protocols", "probability", "losses", "schedules", "nn", "train"},
    1: {"data", "models", "samplers", "stacking"},
    2: {"plot", "evaluation"},  # evaluation trains and judges every family, so it stands above them
    3: {"widgets", "notebook", "pairs"},
    4: {"grading"},
}
# The only room that may import a package, at any depth.
DOORS = {"matplotlib": "plot", "ipywidgets": "widgets"}
# A package may import within itself, except models: each is a chapter of its own.
ROOMS_THAT_SHARE = {"nn", "evaluation", "grading"}


def floor_of(room: str) -> int | None:
    return next((floor for floor, rooms in FLOORS.items() if room in rooms), None)


def imports(source: str):
    """Every module that a source imports, also inside functions, and whether the import runs with the module."""
    tree = ast.parse(source)
    at_once = set(ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            at_once -= set(ast.walk(node)) - {node}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in at_once
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), node in at_once
            elif node.module == "course_lib":
                for alias in node.names:
                    yield f"course_lib.{alias.name}", node in at_once
            else:
                yield node.module, node in at_once


def violations(relative: str, source: str) -> list[str]:
    """What a module, named by its path below course_lib, imports although it may not."""
    parts = Path(relative).with_suffix("").parts
    room = parts[0]
    if room == "__init__":
        return [f"course_lib/__init__.py imports {name}" for name, _ in imports(source) if name != "__future__"]
    floor = floor_of(room)
    if floor is None:
        return [f"{relative} stands on no floor: add it to FLOORS in {Path(__file__).name}"]
    found = []
    for name, at_once in imports(source):
        package = name.split(".")[0]
        if name.startswith("."):
            found.append(f"{relative} imports {name}: write course_lib.… in full")
        elif package in DOORS and room != DOORS[package]:
            found.append(f"{relative} imports {package}: only {DOORS[package]} may")
        elif package == "torchvision" and at_once:
            found.append(f"{relative} imports torchvision with the module: import it in the function that needs it")
        elif package == "course_lib" and name != "course_lib":
            other = name.split(".")[1]
            inside = other == room and room in ROOMS_THAT_SHARE
            if not inside and (floor_of(other) is None or floor_of(other) >= floor):
                found.append(f"{relative} (floor {floor}) imports {name} (floor {floor_of(other)})")
    return found


def modules() -> list[Path]:
    return sorted(p for p in LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(LIBRARY)))
def test_every_module_imports_only_from_below(path):
    assert violations(str(path.relative_to(LIBRARY)), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("nn/dense.py", "from course_lib.data import Batches", "floor 0"),
        ("nn/dense.py", "from course_lib import plot", "floor 2"),
        ("train.py", "from course_lib.nn import MLP", "floor 0"),
        ("models/vae.py", "from course_lib.models.autoencoder import Autoencoder", "floor 1"),
        ("models/vae.py", "def f():\n    import course_lib.data", "floor 1"),
        ("widgets.py", "from course_lib.notebook import check", "floor 3"),
        ("notebook.py", "import matplotlib.pyplot as plt", "only plot may"),
        ("plot.py", "def f():\n    from ipywidgets import VBox", "only widgets may"),
        ("data.py", "from torchvision import datasets", "in the function"),
        ("data.py", "from . import probability", "in full"),
        ("newcomer.py", "import torch", "no floor"),
        ("__init__.py", "from course_lib import data", "imports course_lib.data"),
    ],
)
def test_a_violation_is_caught(module, source, complaint):
    (line,) = violations(module, source)
    assert complaint in line


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.py", "from course_lib import probability"),
        ("data.py", "def f():\n    from torchvision import datasets"),
        ("evaluation/table.py", "from course_lib.evaluation.metrics import c2st"),
        ("notebook.py", "from course_lib import plot\nfrom course_lib.train import fit"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert violations(module, source) == []


def test_importing_the_library_imports_neither_figures_nor_widgets():
    script = "import sys, course_lib.models.autoencoder, course_lib.data; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{name}'" in loaded for name in ("matplotlib", "ipywidgets", "torchvision", "course_lib.plot"))
