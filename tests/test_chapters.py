"""What every chapter promises: its parts in order, claims that are checked, outputs from the full profile."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from course_lib import pairs

ROOT = Path(__file__).parent.parent
CHAPTERS = [p for p in pairs.sources([ROOT / "notebooks"]) if p.parent.name == "notebooks"]
PARTS = ["The idea", "The mathematics", "By hand", "Images", "What goes wrong", "Quiz", "Exercises", "Summary"]


@pytest.fixture(params=CHAPTERS, ids=lambda p: p.stem)
def chapter(request):
    return nbformat.read(request.param.with_suffix(".ipynb"), as_version=4)


def code_cells(chapter):
    return [cell for cell in chapter.cells if cell.cell_type == "code"]


def text(chapter):
    return "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")


def calls_of(cell, name):
    """The calls of a function, by its bare name, in a cell; its magics are left out."""
    source = re.sub(r"^(\s*)%.*$", r"\1pass", cell.source, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def calls(cell, name):
    """How often a cell calls a function, by its bare name."""
    return len(list(calls_of(cell, name)))


def test_there_are_chapters():
    assert CHAPTERS


def test_the_parts_stand_in_order(chapter):
    headings = re.findall(r"^## (.+)$", text(chapter), flags=re.MULTILINE)
    places = [headings.index(part) for part in PARTS]
    assert places == sorted(places)
    assert any("oracle" in heading.lower() for heading in headings[: places[3]])
    assert re.search(r"\*\*Time\*\*: about .+ quick .+ full", text(chapter))


def test_every_claim_is_compared_and_nothing_else_is(chapter):
    for cell in code_cells(chapter):
        tagged = "nbval-check-output" in cell.metadata.get("tags", [])
        assert tagged == bool(calls(cell, "check")), cell.source
        if tagged:
            lines = "".join(o.get("text", "") for o in cell.outputs).splitlines()
            assert len(lines) == calls(cell, "check") and all(line.startswith("✓ ") for line in lines)
    assert sum(calls(cell, "check") for cell in code_cells(chapter)) >= 8


def test_a_statement_holds_no_figure_of_one_run(chapter):
    """What differs between machines belongs into the brackets, where nbval does not compare it."""
    for cell in code_cells(chapter):
        for call in calls_of(cell, "check"):
            assert isinstance(call.args[0], ast.Constant), ast.unparse(call)


def test_the_outputs_are_from_the_full_profile(chapter):
    printed = "".join(o.get("text", "") for cell in code_cells(chapter) for o in cell.outputs)
    assert "full profile, cpu, seed 0" in printed and "quick profile" not in printed


def test_there_is_an_explorer_and_a_quiz(chapter):
    html = "".join(o.get("data", {}).get("text/html", "") for cell in code_cells(chapter) for o in cell.outputs)
    assert 'class="frame-slider"' in html and '<form class="quiz' in html


def test_every_citation_is_in_the_bibliography(chapter):
    cited = set(re.findall(r"\{cite(?::\w+)?\}`([\w,]+)`", text(chapter)))
    entries = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(), flags=re.MULTILINE))
    assert cited and {key for group in cited for key in group.split(",")} <= entries
