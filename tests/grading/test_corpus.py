"""Hostile and broken submissions, graded as one class: none earns what it should not, none costs anybody else."""

import csv
import json
import os
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import hostile
import numpy as np
import pytest
from make import SOLUTIONS, answered, function_of

from course_lib.grading import compare
from course_lib.grading.command import main
from course_lib.grading.grade import Grade, PartGrade
from course_lib.grading.notebooks import load
from course_lib.grading.release import released

NAME = "02_autoencoders"
EXERCISE = load(SOLUTIONS / f"{NAME}.py")
FULL = {p.id: p.points for p in EXERCISE.parts}
KINDS = {**hostile.POISON, **hostile.CELLS}
WALLS = os.environ.get("COURSE_SANDBOX", "bwrap") == "bwrap"
RUN = [kind for kind in KINDS if WALLS or kind not in hostile.NEED_WALLS]
# two to a submission, each beside four parts that are right
HALF = (len(RUN) + 1) // 2
PLACES = {kind: (f"h{i % HALF:02}.ipynb", "2.2" if i < HALF else "2.4") for i, kind in enumerate(RUN)}


def cell(kind: str, part: str) -> str:
    function = function_of(EXERCISE, part)
    if kind == "writes down public values":
        _, keys = released(NAME)
        known = [float(compare.decode(v)) for one in keys[part]["expected"] for v in one.values()]
        return f"known = {known} * 9\ndef {function}(*args):\n    return known.pop(0)"
    return KINDS[kind].replace("FUNCTION", function)


def broken_files(folder):
    """What is no submission, or hardly one; returns the status and the score that it gets."""
    right = answered(EXERCISE)
    notebook = json.loads(right)
    expected = {}

    def put(name, content, status, score=None):
        path = folder / name if isinstance(name, str) else os.path.join(os.fsencode(folder), name)
        if isinstance(name, str):
            path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        expected[os.fsdecode(name).encode("utf-8", "replace").decode()] = (status, score)

    def changed(change):
        copy = json.loads(right)
        change(copy)
        return json.dumps(copy)

    def without_ids(n):
        for c in n["cells"]:
            c["metadata"].pop("exercise", None)

    def one_missing(n):
        n["cells"] = [c for c in n["cells"] if c["metadata"].get("exercise", {}).get("id") != "2.1"]

    def doubled(n):
        first = next(c for c in n["cells"] if c["metadata"].get("exercise", {}).get("id") == "2.1")
        n["cells"].append({**first, "source": "def reconstruction_loss(x, x_hat):\n    return 0.0"})

    def odd_cells(n):
        n["cells"] += [None, 7, [], {"cell_type": "code"}, {"metadata": {"exercise": "2.1"}}, {"metadata": None}]
        n["cells"].append({"cell_type": "code", "metadata": {"exercise": {"id": ["2.1"]}}, "source": ""})

    def no_checks(n):
        n["cells"] = [c for c in n["cells"] if "grade" not in c["metadata"]]

    def own_checks(n):
        for c in n["cells"]:
            if "grade" in c["metadata"] or "setup" in c["metadata"].get("tags", []):
                c["source"] = "raise RuntimeError('not mine')"

    def helpers_die(n):
        c = next(c for c in n["cells"] if c["metadata"].get("exercise", {}).get("id") == "helpers")
        c["source"] = "import os; os._exit(3)"

    put("empty.ipynb", "", "unreadable")
    put("text.ipynb", "I could not upload my notebook, sorry.", "unreadable")
    put("binary.ipynb", bytes(range(256)) * 40, "unreadable")
    put("list.ipynb", "[1, 2, 3]", "unreadable")
    put("deep.ipynb", "[" * 100_000, "unreadable")
    put("number.ipynb", "9" * 50_000, "unreadable")
    put("large.ipynb", b"{" + b" " * 20_000_000 + b"}", "unreadable")
    put("other.ipynb", answered(load(SOLUTIONS / "01_foundations.py")), "unreadable")
    put("no_ids.ipynb", changed(without_ids), "unreadable")
    put("no_cells.ipynb", json.dumps({**notebook, "cells": "none"}), "unreadable")
    os.symlink("/etc/passwd", folder / "link.ipynb")
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "folder.ipynb").mkdir()
    expected |= {f"{name}.ipynb": ("unreadable", None) for name in ("link", "pipe", "folder")}
    put("missing.ipynb", changed(one_missing), "ok", 10)
    put("doubled.ipynb", changed(doubled), "ok", 10)
    put("odd.ipynb", changed(odd_cells), "ok", 11)
    put("helpers.ipynb", changed(helpers_die), "ok", 11)
    put("untouched.ipynb", answered(EXERCISE, others="stub"), "ok", 0)
    put("no_kernel.ipynb", json.dumps({"cells": notebook["cells"]}), "ok", 11)
    put("no_checks.ipynb", "\ufeff" + changed(no_checks), "ok", 11)
    put("own_checks.ipynb", changed(own_checks), "ok", 11)
    stub = answered(EXERCISE, others="stub")
    put("=HYPERLINK(1).ipynb", stub, "ok", 0)
    put("<img src=x onerror=alert(1)>&.ipynb", stub, "ok", 0)
    put("Zoë 李.ipynb", stub, "ok", 0)
    put("group 1/ann/homework.ipynb", stub, "ok", 0)
    put("group 1/bob/homework.ipynb", stub, "ok", 0)
    put("Jose\u0301.ipynb", stub, "ok", 0)
    put("jos\u00e9/02.ipynb", stub, "ok", 0)
    put(b"latin-\xe9.ipynb", stub, "ok", 0)
    # beside a submission, and never run
    for name in ("conftest.py", "random.py", "json.py", "sitecustomize.py", "usercustomize.py"):
        (folder / name).write_text("raise SystemExit('a file beside a submission was run')")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "right-checkpoint.ipynb").write_text(right)
    return expected


@pytest.fixture(scope="module")
def graded(tmp_path_factory, walls):
    """The whole class, through the command line."""
    folder = tmp_path_factory.mktemp("class")
    for file in sorted({file for file, _ in PLACES.values()}):
        cells = {part: cell(kind, part) for kind, (place, part) in PLACES.items() if place == file}
        (folder / file).write_bytes(answered(EXERCISE, cells).encode("utf-8", "surrogatepass"))
    expected = broken_files(folder)
    out = tmp_path_factory.mktemp("out")
    arguments = ["grade", str(SOLUTIONS / f"{NAME}.py"), str(folder), "--out", str(out / "grades.csv"), "--jobs", "2"]
    arguments += ["--json", str(out / "all.json"), "--junit", str(out / "junit"), "--feedback", str(out / "pages")]
    assert main([*arguments, "--cell-timeout", "8", "--sandbox", walls]) == 0
    grades = {}
    for record in json.loads((out / "all.json").read_text()):
        record["parts"] = {p["id"]: PartGrade(**p) for p in record["parts"]}
        grades[record["file"]] = Grade(**record)
    return out, grades, expected


def test_there_are_at_least_thirty_kinds():
    assert len(KINDS) >= 50


@pytest.mark.parametrize("kind", RUN)
def test_a_hostile_cell_earns_nothing_and_costs_no_other_part(graded, kind):
    file, part = PLACES[kind]
    grade = graded[1][file]
    hostile_parts = {p for f, p in PLACES.values() if f == file}
    assert grade.parts[part].points == 0 and grade.parts[part].status != "right", grade.parts[part]
    others = {i: p.points for i, p in grade.parts.items() if i not in hostile_parts}
    assert others == {i: n for i, n in FULL.items() if i not in hostile_parts}, grade.parts
    assert grade.status in ("ok", "partial")


FATES = {
    "leaves": "died",
    "kills itself": "died",
    "crashes": "died",
    "never ends": "timeout",
    "never ends and cannot be interrupted": "timeout",
    "sleeps": "timeout",
    "shows too much": "output-limit",
    "not Python": "error",
    "a truth value": "error",
    "nothing": "error",
    "not a number": "wrong",
    "patches every comparison": "wrong",
    "writes down public values": "wrong",
    "an empty cell": "error",
    "silences its error": "error",
}


@pytest.mark.parametrize("kind", FATES)
def test_the_status_says_what_happened(graded, kind):
    file, part = PLACES[kind]
    assert graded[1][file].parts[part].status == FATES[kind], graded[1][file].parts[part]


def test_a_broken_file_is_a_status_and_a_line(graded):
    _, grades, expected = graded
    for file, (status, score) in expected.items():
        grade = grades[file]
        assert (grade.status, grade.score) == (status, score), grade
        assert status == "ok" or len(grade.notes) == 1
        assert not any("Traceback" in note for note in grade.notes)
    assert set(grades) == set(expected) | {file for file, _ in PLACES.values()}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("empty.ipynb", "it is empty"),
        ("text.ipynb", "not JSON"),
        ("binary.ipynb", "not text in UTF-8"),
        ("large.ipynb", "20.0 MB, more than 5.2 MB"),
        ("deep.ipynb", "not JSON"),
        ("other.ipynb", "no cell of 02_autoencoders; it holds 1.1, 1.2"),
        ("no_ids.ipynb", "no cell of 02_autoencoders"),
        ("no_cells.ipynb", "no list of cells"),
        ("link.ipynb", "cannot be opened"),
        ("pipe.ipynb", "not a plain file"),
        ("folder.ipynb", "not a plain file"),
        ("missing.ipynb", "2.1: the cell is missing"),
        ("doubled.ipynb", "more than once; the last one with an answer counts"),
        ("helpers.ipynb", "helpers: its kernel died"),
        ("jos\u00e9/02.ipynb", "another submission has the same name"),
        ("Jose\u0301.ipynb", "another submission has the same name"),
    ],
)
def test_the_line_says_why(graded, file, words):
    assert any(words in note for note in graded[1][file].notes), graded[1][file].notes


def test_two_students_of_a_group_are_two_lines(graded):
    assert {"group 1/ann/homework.ipynb", "group 1/bob/homework.ipynb"} <= set(graded[1])


def test_the_table_is_safe_in_a_spreadsheet(graded, walls):
    out, grades, _ = graded
    rows = list(csv.DictReader((out / "grades.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == len(grades)
    for row in rows:
        assert not any((value or "").startswith(("=", "+", "-", "@", "\t", "\r")) for value in row.values())
        assert not any("\x1b" in (value or "") or "\n" in (value or "") for value in row.values())
        assert row["sandbox"] == walls
    assert any(row["file"] == "'=HYPERLINK(1).ipynb" for row in rows)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)


def test_pages_and_xml_hold_text_of_strangers_as_text(graded):
    out, grades, _ = graded
    pages, files = sorted((out / "pages").iterdir()), sorted((out / "junit").iterdir())
    assert len(pages) == len(files) == len(grades)
    for page in pages:
        parser = Tags()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "section"}
    cases = [case for file in files for case in ElementTree.parse(file).getroot()]
    assert sum(case.find("failure") is None and case.find("error") is None for case in cases) == sum(
        p.status == "right" for g in grades.values() for p in g.parts.values()
    )


def test_no_expected_value_is_in_anything_that_a_student_reads(graded):
    out, _, _ = graded
    text = (out / "grades.csv").read_text() + "".join(p.read_text() for p in (out / "pages").iterdir())
    for word in ("np.linalg", "eigvalsh", "expected ", "0.123"):
        found = [line for line in text.splitlines() if word in line and "has shape" not in line]
        assert not [line for line in found if "holds" not in line and "it stops with" not in line]


def test_values_of_two_buckets_differ():
    from course_lib.grading.grade import bucket_seeds

    seeds = [seed for number in range(4) for seed in bucket_seeds(number, b"a secret of sixteen")]
    assert len(set(seeds)) == 8 and min(seeds) >= 1000
    assert not np.isin(seeds, [s for n in range(4) for s in bucket_seeds(n, b"another secret, 16")]).any()
