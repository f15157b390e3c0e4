"""The grader's rooms, and its command as people use it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from make import ROOT, SOLUTIONS, answered, function_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from course_lib.grading import compare, grade, release, report, runs, sandbox
from course_lib.grading.checks import Checks, WrongAnswer, encode
from course_lib.grading.command import main
from course_lib.grading.grade import Grade, Journal, PartGrade, bucket, grade_folder, grade_submission
from course_lib.grading.notebooks import ExerciseError, Part, Unreadable, load, read_submission, stubbed
from course_lib.grading.runs import GraderError, Outcome
from course_lib.grading.sandbox import Limits, SandboxError, probe

EXERCISE = load(SOLUTIONS / "02_autoencoders.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COURSE_UNATTENDED": "1"}

SMALL = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Small

# %% tags=["setup"]
from course_lib.grading.checks import Checks

check = Checks("90_small")

# %% exercise={"id": "9.1", "title": "Double", "points": 1}
def double(x):
    return 2 * x


# %% grade={"part": "9.1"}
@check("9.1")
def values(seed):
    return {"y": double(float(seed) + 0.5)}


# %% misconception="9.1"
# You square.
def double(x):
    return x**2


# %% misconception="9.1"
# You add one.
def double(x):
    return x + 1


# %% misconception="9.1"
# You do nothing.
def double(x):
    return x
"""


def small(folder, text=SMALL):
    path = folder / "90_small.py"
    path.write_text(text)
    return path


# --- values


@pytest.mark.parametrize("value", [1.5, [1, 2], np.float32([[1, np.nan]]), torch.ones(2, 3), np.zeros((0, 2)), np.inf])
def test_values_survive_the_journey(value):
    written = json.loads(json.dumps(encode("x", value)))
    np.testing.assert_array_equal(compare.decode(written), np.asarray(value, dtype=float))
    assert written["kind"] == ("i" if np.asarray(value).dtype.kind == "i" else "f")


@pytest.mark.parametrize("value", [True, np.array([True]), "1", None, 1j, [object()], {}, 10**400])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="x: expected an array of numbers, got"):
        encode("x", value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        [],
        {},
        {"kind": "f"},
        {"kind": "x", "shape": [], "data": ""},
        {"kind": [], "shape": [], "data": ""},
        {"kind": "f", "shape": [2], "data": "AAAAAAAA8D8="},
        {"kind": "f", "shape": [-1], "data": "AAAAAAAA8D8="},
        {"kind": "f", "shape": [True], "data": "AAAAAAAA8D8="},
        {"kind": "f", "shape": [10**30], "data": ""},
        {"kind": "f", "shape": [1] * 40, "data": "AAAAAAAA8D8="},
        {"kind": "f", "shape": [], "data": "not base64!"},
        {"kind": "f", "shape": [], "data": "AAA="},
        {"kind": "f", "shape": {}, "data": 3},
    ],
)
def test_malformed_values_are_refused(value):
    with pytest.raises(ValueError, match="malformed"):
        compare.decode(value)


def values(*arrays, name="y"):
    return [{name: encode(name, a)} for a in arrays]


A, B = np.array([1.0, -2.0, 3.0]), np.array([0.5, 4.0, -1.0])
SQUARE = np.array([[1.0, 2.0], [3.0, 5.0]])


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        (values(A, B), values(A, B), None),
        (values(A, B), values(A * (1 + 9e-5), B), None),
        (values(A, B), values(A * (1 + 2e-4), B), "differs in 3 of 6"),
        (values(A, B), values(B, A), "differs in 6 of 6"),
        (values(A, B), values(-A, -B), "has the opposite sign"),
        (values(A, B), values(-A, B), "differs in 3 of 6"),
        (values(A, B), values(2 * A, 2 * B), "is 2 times what it should be"),
        (values(A, B), values(A / 3, B / 3), "is 0.333 times"),
        (values(A, B), values(A + 1, B + 1), "off by the same amount"),
        (values(SQUARE), values(SQUARE.T), "is transposed"),
        (values(A), values(A[:2]), r"has shape \(2,\), expected \(3,\)"),
        (values(A), values(A[:, None]), r"has shape \(3, 1\), expected \(3,\)"),
        (values(A), values(np.array([1, -2, 3])), "holds whole numbers, expected real numbers"),
        (values(np.array([1, 2])), values(np.array([1.0, 2.0])), "holds real numbers, expected whole"),
        (values(A), values(np.array([1.0, np.nan, 3.0])), "is not finite everywhere"),
        (values(np.array([np.nan, 1.0])), values(np.array([np.nan, 1.0])), None),
        (values(np.array([np.nan, 1.0])), values(np.array([0.0, 1.0])), "differs in 1 of 2"),
        (values(np.array([np.inf])), values(np.array([np.inf])), None),
        (values(np.array([np.inf])), values(np.array([-np.inf])), "opposite sign"),
        (values(np.array([np.inf])), values(np.array([1e300])), "differs"),
        (values(np.array([1e300])), values(np.array([np.inf])), "not finite"),
        (values(np.zeros(3)), values(np.full(3, 9e-7)), None),
        (values(np.zeros(3)), values(np.full(3, 2e-6)), "differs"),
        (values(A, B), values(A), "not one set of values for each seed"),
        (values(A), values(A, name="z"), "other values"),
        (values(A), [], "not one set"),
        (values(A), None, "not one set"),
        (values(A), [None], "other values"),
        (values(A), [{"y": 7}], "cannot be read"),
        # one number only: a factor would tell what is right
        (values(5.0, 5.0), values(10.0, 10.0), "differs in 2 of 2"),
    ],
)
def test_a_difference_is_named(expected, found, words):
    message = compare.difference(expected, found, rtol=1e-4, atol=1e-6)
    assert message is None if words is None else re.search(words, message), message
    assert message is None or not any(f"{v:.3f}" in message for v in A)


def test_a_check_in_a_notebook_says_what_is_wrong_in_one_line(capsys):
    check = Checks("02_autoencoders")
    assert check.seeds == (0, 1) and not check.published
    with pytest.raises(
        WrongAnswer, match=r"✗ 2\.6 From a denoiser to the score: score has the opposite sign\. Hint: Your"
    ):
        namespace = {"np": np, "check": check, "score": lambda x, d, sigma: (x - d) / sigma**2}
        exec(EXERCISE.part("2.6").check, namespace)
    namespace["score"] = lambda x, d, sigma: (d - x) / sigma**2
    exec(EXERCISE.part("2.6").check, namespace)
    assert capsys.readouterr().out == "✓ 2.6 From a denoiser to the score: right on the public seeds (1 point)\n"


# --- notebooks


def test_a_stub_keeps_signature_docstring_and_what_stands_around():
    head = 'import math\n\n\n@staticmethod\ndef f(\n    x,\n    y=1,\n):\n    """What.\n\n    More.\n    """\n'
    source = head + "    def inner():\n        return 1\n    return x\n\n\nLAST = 1"
    expected = head + '    raise NotImplementedError("1.1 T")\n\n\nLAST = 1'
    assert stubbed(source, "1.1 T") == expected
    assert (
        stubbed("class A:\n    def g(self):\n        return 1\n\n    def h(self):\n        return 2", "m").count(
            "raise"
        )
        == 2
    )
    with pytest.raises(ExerciseError, match="an answer defines a function"):
        stubbed("x = 1", "1.1 T")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.replace('tags=["setup"]', ""), "one cell with the tag 'setup', got 0"),
        (lambda s: s.replace('"title": "Double", ', ""), "part 9.1 lacks title"),
        (lambda s: s.replace('# %% grade={"part": "9.1"}', "# %%"), "expected one check, got 0"),
        (lambda s: s.replace("# You square.\n", ""), "begins with its hint"),
        (
            lambda s: s.replace(
                "return 2 * x",
                'return 2 * x\n\n\n# %% exercise={"id": "9.1", "title": "T", "points": 1}\ndef f():\n    pass',
            ),
            "different ids",
        ),
        (
            lambda s: (
                s.replace("return 2 * x", "return 2 * other(x)")
                + '\n\n# %% exercise={"id": "9.2", "title": "T", "points": 1}\ndef other(x):\n    return x\n'
                + '\n\n# %% grade={"part": "9.2"}\n1\n'
            ),
            "part 9.1 uses other of part 9.2",
        ),
        (lambda s: s.replace("percent", "light"), "format_name: percent"),
    ],
)
def test_a_reference_that_breaks_a_rule_is_refused(tmp_path, change, complaint):
    with pytest.raises(ExerciseError, match=complaint):
        load(small(tmp_path, change(SMALL)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda s: s.replace('{"y": double(float(seed) + 0.5)}', '{"y": abs(double(seed) - 2 * seed) < 1}'),
            "expected an array of numbers, got bool",
        ),
        (
            lambda s: s.replace('{"y": double(float(seed) + 0.5)}', '{"y": float(double(seed) == 2 * seed)}'),
            "y is the same on two seeds",
        ),
        (
            lambda s: s.replace(
                "# You add one.\ndef double(x):\n    return x + 1", "# You add.\ndef double(x):\n    return x + x"
            ),
            "the reference and misconception 1 cannot be told apart",
        ),
        (
            lambda s: s.replace("return x + 1", "return x**2 + 0"),
            "misconception 0 and misconception 1 cannot be told apart",
        ),
        (lambda s: s.replace("return x + 1", "return x / 0"), "9.1, misconception 1: ZeroDivisionError"),
        (lambda s: s.replace("# You add one.", "# You square."), "two misconceptions share a hint"),
        (lambda s: s.split('# %% misconception="9.1"\n# You do nothing')[0], "at least 3 misconceptions, got 2"),
        (
            lambda s: s.replace(
                "def double(x):\n    return 2 * x", "import random\ndef double(x):\n    return 2 * x + random.random()"
            ),
            "other values when it runs again",
        ),
    ],
)
def test_the_gate_refuses(tmp_path, change, complaint):
    with pytest.raises(ExerciseError, match=complaint):
        release.gate(load(small(tmp_path, change(SMALL))), limits=Limits(60, 240, sandbox="none"))


def test_a_refused_release_writes_nothing(tmp_path, capsys):
    (tmp_path / "solutions").mkdir()
    path = small(tmp_path / "solutions", SMALL.replace("# You add one.", "# You square."))
    assert main(["release", str(path), "--sandbox", "none", "--cell-timeout", "60"]) == 1
    assert "share a hint" in capsys.readouterr().err
    assert not (tmp_path / "exercises").exists() and not (release.PUBLIC / "90_small.json").exists()


@pytest.mark.parametrize("change", ["solution", "py", "ipynb", "json"])
def test_what_is_out_of_date_is_found(tmp_path, monkeypatch, change):
    (tmp_path / "solutions").mkdir()
    path = small(tmp_path / "solutions")
    monkeypatch.setattr(release, "PUBLIC", tmp_path / "public")
    monkeypatch.setattr(release, "gate", lambda exercise, limits: fake_keys(exercise))
    target = release.release(path, limits=Limits(sandbox="none"))
    assert release.outdated(path) == []
    assert "2 * x" not in target.read_text() + target.with_suffix(".ipynb").read_text()
    assert "square" not in target.read_text()
    file = {"solution": path, "py": target, "ipynb": target.with_suffix(".ipynb")}.get(
        change
    ) or tmp_path / "public/90_small.json"
    file.write_text(file.read_text().replace("Double", "Twice"))
    assert any(file.name in line or change == "solution" for line in release.outdated(path))


def fake_keys(exercise):
    key = {"expected": values(1.0, 2.0), "rtol": 1e-4, "atol": 1e-6}
    return {
        p.id: {**key, "misconceptions": [{"hint": m.hint, "values": values(3.0, 4.0)} for m in p.misconceptions]}
        for p in exercise.parts
    }


def test_only_cells_with_an_identifier_move(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(answered(EXERCISE, {"2.1": "# NBVAL_SKIP\n  #  NBVAL_RAISES_EXCEPTION\n1", "helpers": "import os"}))
    submission = read_submission(path, EXERCISE)
    assert set(submission.cells) == {"helpers", *(p.id for p in EXERCISE.parts)} and submission.notes == ()
    assert submission.cells["2.1"] == "# NBVAL_ SKIP\n  #  NBVAL_ RAISES_EXCEPTION\n1"


def test_a_later_stub_does_not_replace_an_answer(tmp_path):
    path, first = tmp_path / "x.ipynb", EXERCISE.parts[0]
    notebook = json.loads(answered(EXERCISE))
    notebook["cells"].append({"cell_type": "code", "metadata": {"exercise": {"id": first.id}}, "source": [first.stub]})
    path.write_text(json.dumps(notebook))
    submission = read_submission(path, EXERCISE)
    assert submission.cells[first.id] == first.answer and "more than once" in submission.notes[0]
    notebook["cells"][-1]["source"] = "second answer"
    path.write_text(json.dumps(notebook))
    assert read_submission(path, EXERCISE).cells[first.id] == "second answer"


def test_what_is_no_plain_file_is_not_opened(tmp_path):
    (tmp_path / "real.ipynb").write_text(answered(EXERCISE))
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "real.ipynb")
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "large.ipynb").write_bytes(b" " * (5 << 20) + b"{}")
    for name, words in [
        ("nowhere", "opened"),
        ("link", "opened"),
        ("pipe", "plain"),
        ("folder", "plain"),
        ("large", "MB"),
    ]:
        with pytest.raises(Unreadable, match=words):
            read_submission(tmp_path / f"{name}.ipynb", EXERCISE)
    assert len(read_submission(tmp_path / "real.ipynb", EXERCISE).cells) == 7


def test_a_shortcut_is_flagged_and_keeps_its_points(tmp_path, limits):
    shortcut = "from scipy.linalg import subspace_angles\n"
    shortcut += "def largest_angle(A, B):\n    return np.degrees(subspace_angles(A, B).max())"
    path = tmp_path / "ann.ipynb"
    path.write_text(answered(EXERCISE, {"2.4": shortcut}))
    _, keys = release.released("02_autoencoders")
    result = grade_submission(EXERCISE, path, name="ann.ipynb", keys=keys, seeds=(0, 1), limits=limits)
    assert result.flags == ["2.4 uses subspace_angles"] and result.score == result.of and result.runs == 1


# --- grading without a kernel: who is run again, and when


def scripted(monkeypatch, script):
    """Replace runs: ``script(parts)`` gives for the parts of one run the records of their checks, and what ended it."""
    seen = []

    def run(steps, *, keys, seeds, limits):
        parts = [s.key for s in steps if s.kind == "check"]
        seen.append(parts)
        checks, ended_by, fate = script(parts, len(seen))
        return Outcome({}, checks, ended_by, fate)

    monkeypatch.setattr(grade, "run", run)
    return seen


RIGHT, WRONG, HINTED = {"right": True}, {"right": False, "message": "m"}, {"right": False, "message": "m", "hint": "h"}


def grade_scripted(tmp_path, name="ann.ipynb"):
    path = tmp_path / "x.ipynb"
    path.write_text(answered(EXERCISE, {p.id: f"# mine\n{p.answer}" for p in EXERCISE.parts}))
    return grade_submission(EXERCISE, path, name=name, keys={}, seeds=(0,), limits=Limits(sandbox="none"))


IDS = [p.id for p in EXERCISE.parts]


def test_what_is_right_runs_once(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, lambda parts, n: (dict.fromkeys(parts, RIGHT), None, None))
    assert grade_scripted(tmp_path).score == 11 and seen == [IDS]


def test_what_explains_itself_does_not_run_again(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, lambda parts, n: ({p: HINTED if p == "2.3" else RIGHT for p in parts}, None, None))
    assert grade_scripted(tmp_path).score == 9 and seen == [IDS]


def test_unexplained_failures_run_again_last_to_first(tmp_path, monkeypatch):
    def poisoned(parts, n):  # 2.2 breaks whatever comes after it
        at = parts.index("2.2") if "2.2" in parts else len(parts)
        return {p: RIGHT if i < at else WRONG for i, p in enumerate(parts)}, None, None

    seen = scripted(monkeypatch, poisoned)
    result = grade_scripted(tmp_path)
    assert seen == [IDS, ["2.6", "2.5", "2.4", "2.3", "2.2"]]
    assert result.score == 9 and result.status == "ok" and result.runs == 2


def test_after_a_fatal_cell_the_rest_runs_in_a_new_kernel(tmp_path, monkeypatch):
    def deadly(parts, n):
        if "2.3" not in parts:
            return dict.fromkeys(parts, RIGHT), None, None
        return dict.fromkeys(parts[: parts.index("2.3")], RIGHT), "2.3", "died"

    seen = scripted(monkeypatch, deadly)
    result = grade_scripted(tmp_path)
    assert seen == [IDS, ["2.4", "2.5", "2.6"], ["2.3"]]
    assert result.score == 9 and result.status == "partial"


def test_who_is_killed_by_another_gets_a_second_chance(tmp_path, monkeypatch):
    def bomb(parts, n):  # 2.2 sets off what goes off in 2.3
        if "2.2" in parts and "2.3" in parts and parts.index("2.2") < parts.index("2.3"):
            return {"2.1": RIGHT, "2.2": WRONG}, "2.3", "died"
        return {p: WRONG if p == "2.2" else RIGHT for p in parts}, None, None

    seen = scripted(monkeypatch, bomb)
    result = grade_scripted(tmp_path)
    assert seen == [IDS, ["2.4", "2.5", "2.6"], ["2.3", "2.2"]]
    assert result.score == 9 and result.status == "ok"


def test_a_class_in_which_everything_dies_comes_to_an_end(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, lambda parts, n: ({}, parts[0], "timeout"))
    result = grade_scripted(tmp_path)
    assert result.status == "timeout" and result.score == 0 and len(seen) == 6 + 5


def test_the_graders_own_failure_is_no_zero(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise GraderError("no space left")

    monkeypatch.setattr(grade, "run", broken)
    result = grade_scripted(tmp_path)
    assert result.status == "grader-error" and result.score is None and result.notes == ["no space left"]


def test_a_full_disk_is_a_line(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.tempfile, "mkdtemp", full)
    result = grade_scripted(tmp_path)
    assert result.status == "grader-error" and "No space left on device" in result.notes[0]
    with pytest.raises(GraderError, match=r"cannot write /dev/full: No space left on device; mend that, then --resume"):
        Journal(Path("/dev/full"), "a").add(Grade("a", "a", "ok", 1, 1))


# --- a folder


def class_of(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(answered(EXERCISE, others="stub"))


def grade_class(folder, journal, **options):
    key = b"a secret of sixteen characters"
    with ThreadPoolExecutor(2) as executor:
        return grade_folder(
            EXERCISE, folder, journal=journal, key=key, limits=Limits(sandbox="none"), executor=executor, **options
        )


NAMES = ["ann.ipynb", "bob/02.ipynb", "bob-2.ipynb", "eve.ipynb", "zoë.ipynb"]


def test_shards_together_are_the_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grade, "answer_key", lambda *a, **k: {})
    class_of(folder := tmp_path / "class", NAMES)
    whole = grade_class(folder, Journal(tmp_path / "whole.jsonl", "a"))
    report.write_csv(whole, tmp_path / "whole.csv")
    shards = [grade_class(folder, Journal(tmp_path / f"{i}.jsonl", "a"), shard=(i, 2)) for i in (1, 2)]
    assert [len(s) for s in shards] == [3, 2]
    merge = ["merge", str(tmp_path / "2.jsonl"), str(tmp_path / "1.jsonl"), "--out", str(tmp_path / "merged.csv")]
    assert main(merge) == 0
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert main(["merge", str(tmp_path / "nowhere.jsonl")]) == 1
    assert "there is no journal" in capsys.readouterr().err
    (tmp_path / "1.jsonl").write_text((tmp_path / "2.jsonl").read_text().replace('"score": 0', '"score": 1'))
    assert main(merge) == 1
    assert "another result" in capsys.readouterr().err


def test_a_resumed_run_takes_over_what_is_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "answer_key", lambda *a, **k: {})
    graded = []
    inner = grade.grade_submission

    def counted(exercise, path, **how):
        graded.append(path.name)
        return inner(exercise, path, **how)

    monkeypatch.setattr(grade, "grade_submission", counted)
    class_of(folder := tmp_path / "class", ["ann.ipynb", "bob.ipynb"])
    path = tmp_path / "grades.jsonl"
    first = grade_class(folder, Journal(path, "a"))
    path.write_text(path.read_text() + '{"about": "a", "file": "cut')  # killed while writing
    class_of(folder, ["eve.ipynb"])
    (folder / "bob.ipynb").write_text("changed")
    graded.clear()
    second = grade_class(folder, Journal(path, "a"), resume=True)
    assert sorted(graded) == ["bob.ipynb", "eve.ipynb"]
    assert [g.status for g in second] == ["ok", "unreadable", "ok"] and second[0] == first[0]
    graded.clear()
    assert grade_class(folder, Journal(path, "a"), resume=True) == second and graded == []
    grade_class(folder, Journal(path, "another reference"), resume=True)
    assert len(graded) == 3


def test_an_unexpected_error_of_the_grader_is_a_line_and_not_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "answer_key", lambda *a, **k: {})
    inner = grade.grade_submission

    def sometimes(exercise, path, **how):
        if path.name == "bob.ipynb":
            raise RuntimeError("a bug\x1b[31m")
        return inner(exercise, path, **how)

    monkeypatch.setattr(grade, "grade_submission", sometimes)
    class_of(folder := tmp_path / "class", ["ann.ipynb", "bob.ipynb"])
    ann, bob = grade_class(folder, Journal(tmp_path / "j.jsonl", "a"))
    assert ann.status == "ok" and bob.status == "grader-error" and bob.score is None
    assert bob.notes == ["RuntimeError: a bug"]
    report.write_csv([ann, bob], tmp_path / "g.csv")
    assert ",grader-error,," in (tmp_path / "g.csv").read_text()


def test_a_secret_is_made_once_and_for_its_owner_only(tmp_path):
    first = grade.secret(tmp_path / "s")
    assert grade.secret(tmp_path / "s") == first and len(first) == 64
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    (tmp_path / "short").write_text("123")
    with pytest.raises(GraderError, match="at least 16 characters, got 3"):
        grade.secret(tmp_path / "short")
    assert {bucket(f"{i}.ipynb", first) for i in range(100)} == set(range(grade.BUCKETS))


def test_pages_name_no_two_submissions_alike(tmp_path):
    parts = [PartGrade("2.1", "T", 0, 1, "wrong", "m")]
    grades = [Grade(f, f, "ok", 0, 1, parts) for f in ("a b.ipynb", "a_b.ipynb", "a/b.ipynb", "李.ipynb", "王.ipynb")]
    report.write_feedback(grades, tmp_path / "p")
    report.write_junit(grades, tmp_path / "j")
    assert len(list((tmp_path / "p").iterdir())) == len(list((tmp_path / "j").iterdir())) == 5


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grade", "nowhere.py", "."], "nowhere.py"),
        (
            ["grade", str(SOLUTIONS / "02_autoencoders.py"), "nowhere", "--sandbox", "none"],
            "there is no folder nowhere",
        ),
        (["grade", str(SOLUTIONS / "02_autoencoders.py"), "EMPTY", "--sandbox", "none"], "no .ipynb file"),
        (["check", "nowhere.ipynb"], "no exercise 'nowhere' has been released; there are 01_foundations, 02"),
        (["release", "nowhere.py"], "there is no notebook source nowhere.py"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_line(tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty") if a == "EMPTY" else a for a in arguments]
    out = ["--out", str(tmp_path / "g.csv")] if arguments[0] == "grade" else []
    assert main([*arguments, *out]) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


@pytest.mark.parametrize(
    "option", [["--memory", "2"], ["--shard", "0/2"], ["--shard", "3/2"], ["--cell-timeout", "0"], ["--sandbox", "no"]]
)
def test_an_option_that_makes_no_sense_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        main(["grade", "a", "b", *option])
    assert option[0] in capsys.readouterr().err


def test_without_bubblewrap_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"no bwrap, .* here\. .*apt-get install bubblewrap.*--sandbox none"):
        probe("bwrap")


def test_a_bubblewrap_that_may_not_work_says_what_to_do(monkeypatch, tmp_path):
    for name in ("bwrap", "prlimit", "setpriv"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxError, match=r"uid map: Permission denied. Perhaps .*--sandbox none"):
        probe("bwrap")
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="apparmor_restrict_unprivileged_userns=0"):
        probe("bwrap")


def test_folders_of_graders_that_are_gone_are_swept():
    gone = subprocess.Popen(["true"])
    gone.wait()
    old = Path(f"/tmp/grade-{gone.pid}-abc")
    old.mkdir()
    with runs.Workshop() as folder:
        assert not old.exists() and folder.is_dir()
        with runs.Workshop() as other:
            assert folder.is_dir() and other != folder
    assert not folder.exists()


def test_killed_half_way_and_resumed_gives_the_same_table(tmp_path, walls):
    """SIGKILL to the grader: its children die with it, and what it had finished is kept."""
    exercise = load(small(tmp_path))
    (folder := tmp_path / "class").mkdir()
    for i, body in enumerate(["2 * x", "x + x", "x**2", "3 * x", "0"]):
        (folder / f"{i}.ipynb").write_text(answered(exercise, {"9.1": f"def double(x):\n    return {body}"}))
    command = [sys.executable, "-m", "course_lib.grading", "grade", str(tmp_path / "90_small.py"), str(folder)]
    command += ["--jobs", "1", "--sandbox", walls, "--cell-timeout", "60", "--total-timeout", "120"]

    def start(name, *more):
        seed = ["--seed-file", str(tmp_path / "seed"), "--out", str(tmp_path / name), *more]
        return subprocess.Popen(
            [*command, *seed], env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    assert start("whole.csv").wait() == 0
    half = start("half.csv")
    journal, deadline = tmp_path / "half.jsonl", time.monotonic() + 300
    while time.monotonic() < deadline and not (journal.is_file() and journal.read_text().count("\n") >= 2):
        time.sleep(0.02)
    half.send_signal(signal.SIGKILL)
    half.wait()
    lines = journal.read_text().count("\n")
    assert 2 <= lines < 5 and not (tmp_path / "half.csv").exists()
    deadline = time.monotonic() + 60
    while left := [p for p in Path("/proc").glob("[0-9]*/cmdline") if f"grade-{half.pid}-".encode() in _read(p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert start("half.csv", "--resume").wait() == 0
    assert (tmp_path / "half.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert journal.read_text().count("\n") == 5
    assert (tmp_path / "whole.csv").read_text().splitlines()[1].startswith("0.ipynb,0,ok,1,1,1,")
    assert list(Path("/tmp").glob(f"grade-{half.pid}-*")) == []


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- a student's way through


STUDENT = {
    "right": {},
    "wrong": {"2.6": "def score(x_tilde, denoised_x, sigma):\n    return (denoised_x - x_tilde) / sigma"},
}


@pytest.mark.parametrize(("others", "which"), [("right", "right"), ("right", "wrong"), ("stub", "right")])
def test_plain_nbval_and_check_agree(tmp_path, capsys, others, which):
    path = tmp_path / "02_autoencoders.ipynb"
    path.write_text(answered(EXERCISE, STUDENT[which], others=others))
    status = main(["check", str(path), "--cell-timeout", "60", "--total-timeout", "240"])
    said = capsys.readouterr().out
    by_check = {p.id: f"✓ {p.id}" in said for p in EXERCISE.parts}
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-rA", "--tb=no", path.name]
    plain = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    places = {c.metadata.grade.part: i for i, c in enumerate(cells) if "grade" in c.metadata}
    passed = set(map(int, re.findall(r"^PASSED .*::Cell (\d+)$", plain.stdout, flags=re.MULTILINE)))
    assert {part: place in passed for part, place in places.items()} == by_check, plain.stdout
    assert (plain.returncode == 0) == (status == 0) == all(by_check.values())
    points = {("right", "right"): 11, ("right", "wrong"): 10, ("stub", "right"): 0}[others, which]
    assert said.splitlines()[-1] == f"{points} of 11 points on the public seeds"


def test_a_student_gets_one_part_wrong_reads_the_hint_and_mends_it(tmp_path, monkeypatch):
    """In a notebook: the check that fails is one line with a hint, and no traceback."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for source, hint in [
        (
            "def score(x_tilde, denoised_x, sigma):\n    return (denoised_x - x_tilde) / sigma",
            "variance",
        ),
        (EXERCISE.part("2.6").answer, None),
    ]:
        notebook = nbformat.reads(answered(EXERCISE, {"2.6": source}), as_version=4)
        client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
        if hint is None:
            client.execute()
            assert notebook.cells[-1].outputs[0].text.startswith("✓ 2.6")
            continue
        with pytest.raises(CellExecutionError):
            client.execute()
        (error,) = [o for o in notebook.cells[-1].outputs if o.output_type == "error"]
        assert len(error.traceback) == 1 and error.traceback[0].startswith("✗ 2.6") and hint in error.traceback[0]


def test_a_downloaded_notebook_may_have_another_name(tmp_path, capsys):
    path = tmp_path / "Copy of exercises (1).ipynb"
    path.write_text(answered(EXERCISE, others="stub"))
    assert main(["check", str(path)]) == 1
    assert "0 of 11 points" in capsys.readouterr().out


def test_exercises_and_public_values_reach_students_whole():
    for path in sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
        exercise, keys = release.released(path.stem)
        assert all(isinstance(p, Part) and not p.answer and not p.misconceptions for p in exercise.parts)
        reference = load(SOLUTIONS / f"{path.stem}.py")
        text = path.read_text() + json.dumps([vars(p) for p in exercise.parts])
        for part in reference.parts:
            line = max((line.split("  #")[0].strip() for line in part.answer.splitlines()[2:]), key=len)
            assert line not in text and function_of(reference, part.id) in text
            assert [m["hint"] for m in keys[part.id]["misconceptions"]] == [m.hint for m in part.misconceptions]


def test_without_the_extras_the_command_says_what_to_install():
    code = "import runpy, sys; sys.modules['nbval'] = None; runpy.run_module('course_lib.grading', run_name='__main__')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == "grading: nbval not installed: the command needs course_lib[book,test]\n"
