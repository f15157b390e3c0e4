r"""The student's pair, made from the solution, after the solution has passed its gate."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import numpy as np
from nbformat import NotebookNode

from course_lib import pairs
from course_lib.grading import compare
from course_lib.grading.checks import PUBLIC_SEEDS
from course_lib.grading.notebooks import Exercise, ExerciseError, Part, Step, load, student_notebook
from course_lib.grading.runs import answer_key, run
from course_lib.grading.sandbox import Limits

__all__ = ["exercise_path", "gate", "outdated", "release", "released"]

PUBLIC = Path(__file__).parent / "public"
"""Released exercises, as the students' copies of the library hold them: checks and values for the public seeds."""

GATE_SEEDS = (*PUBLIC_SEEDS, *range(101, 119))  # twenty
FEWEST_MISCONCEPTIONS = 3


def exercise_path(source: Path) -> Path:
    r"""Where the student's source of a solution lies.

    Args:
        source: ``solutions/NN_topic.py``.

    Returns:
        ``exercises/NN_topic.py`` beside ``solutions``.
    """
    return source.parent.parent / "exercises" / source.name


def release(source: Path, *, limits: Limits) -> Path:
    r"""Gate a solution, then write the student's pair and the public values.

    Args:
        source: The solution.
        limits: Time, memory, walls for the gate.

    Returns:
        The student's source.

    Raises:
        ExerciseError: If the solution does not pass the gate; nothing is written then.
    """
    exercise = load(source)
    keys = gate(exercise, limits=limits)
    public = {part: _for_seeds(key, len(PUBLIC_SEEDS)) for part, key in keys.items()}
    text, notebook = _pair(exercise)
    target = exercise_path(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    pairs.write(notebook, target.with_suffix(".ipynb"))
    PUBLIC.mkdir(exist_ok=True)
    (PUBLIC / f"{exercise.name}.json").write_text(_public_text(exercise, public), encoding="utf-8")
    return target


def outdated(source: Path) -> list[str]:
    r"""Say where the released files of a solution disagree with it, without running anything.

    Args:
        source: The solution.

    Returns:
        One line for each file; none when all agree.
    """
    try:
        exercise = load(source)
        text, notebook = _pair(exercise)
    except ExerciseError as error:
        return [str(error)]
    target, again = exercise_path(source), f"run: python -m course_lib.grading release {source}"
    lines = []
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        lines.append(f"{target} is not what its solution gives; {again}")
    expected = target.with_suffix(".ipynb")
    try:
        found = pairs.signature(jupytext.reads(expected.read_text(encoding="utf-8"), fmt="ipynb"))
        outputs = "outputs" in expected.read_text(encoding="utf-8") and any(
            c.get("outputs") for c in jupytext.read(expected).cells
        )
    except (OSError, ValueError):
        found, outputs = None, False
    if found != pairs.signature(notebook) or outputs:
        lines.append(f"{expected} is not what its solution gives; {again}")
    try:
        stored = json.loads((PUBLIC / f"{exercise.name}.json").read_text(encoding="utf-8"))
        keys = {p["id"]: p["key"] for p in stored["parts"]}
        same = json.loads(_public_text(exercise, keys)) == stored
        same &= all(
            [m["hint"] for m in keys[p.id]["misconceptions"]] == [m.hint for m in p.misconceptions]
            for p in exercise.parts
        )
        same &= all((keys[p.id]["rtol"], keys[p.id]["atol"]) == (p.rtol, p.atol) for p in exercise.parts)
    except (OSError, ValueError, KeyError):
        same = False
    if not same:
        lines.append(f"{PUBLIC.name}/{exercise.name}.json is not what its solution gives; {again}")
    return lines


def released(name: str) -> tuple[Exercise, dict[str, dict]]:
    r"""A released exercise as a student has it, and its keys for the public seeds.

    Args:
        name: Name of the exercise.

    Returns:
        The exercise, without answers, and a key for each part.

    Raises:
        ExerciseError: If there is none of this name.
    """
    path = PUBLIC / f"{name}.json"
    if not path.is_file():
        names = sorted(p.stem for p in PUBLIC.glob("*.json"))
        raise ExerciseError(f"no exercise {name!r} has been released; there are {', '.join(names)}")
    stored = json.loads(path.read_text(encoding="utf-8"))
    keys = {p["id"]: p.pop("key") for p in stored["parts"]}
    parts = tuple(Part(**{**p, "forbid": tuple(p["forbid"])}) for p in stored["parts"])
    return Exercise(stored["name"], stored["setup"], parts), keys


def gate(exercise: Exercise, *, limits: Limits) -> dict[str, dict]:
    r"""Refuse an exercise that could be graded wrongly.

    On twenty seeds: two runs of the reference agree; stubs get nothing; values change with the seed, so that none can
    be written down; every misconception is wrong, and is told from every other.

    Args:
        exercise: The reference.
        limits: Time, memory, walls.

    Returns:
        The key of each part, for the twenty seeds; the public ones come first.

    Raises:
        ExerciseError: At the first rule that is broken.
    """
    keys = answer_key(exercise, seeds=GATE_SEEDS, limits=limits)
    again = answer_key(exercise, seeds=GATE_SEEDS, limits=limits)
    steps = [Step("setup", "", exercise.setup)]
    for part in exercise.parts:
        steps += [Step("answer", part.id, part.stub), Step("check", part.id, part.check)]
    stubs = run(steps, seeds=GATE_SEEDS, limits=limits, keys=keys)
    for part in exercise.parts:
        where, key = f"{exercise.name}: part {part.id}", keys[part.id]
        if not compare.judge(key, again[part.id]["expected"]).right:
            raise ExerciseError(f"{where}: the reference gives other values when it runs again")
        if stubs.checks.get(part.id, {}).get("right") is not None:
            raise ExerciseError(f"{where}: the stub hands over values; it must raise NotImplementedError")
        _values_depend_on_the_seed(where, part, key)
        _misconceptions_are_told_apart(where, part, key)
    return keys


def _values_depend_on_the_seed(where: str, part: Part, key: dict[str, Any]) -> None:
    for name in key["expected"][0]:
        values = [compare.decode(one[name]) for one in key["expected"]]
        first = values[0]
        same = [v.shape == first.shape and np.allclose(v, first, rtol=part.rtol, atol=part.atol) for v in values[1:]]
        if any(same):
            raise ExerciseError(
                f"{where}: {name} is the same on two seeds: a verdict or a constant can be had without solving the part"
            )


def _misconceptions_are_told_apart(where: str, part: Part, key: dict[str, Any]) -> None:
    if len(part.misconceptions) < FEWEST_MISCONCEPTIONS:
        raise ExerciseError(
            f"{where}: expected at least {FEWEST_MISCONCEPTIONS} misconceptions, got {len(part.misconceptions)}"
        )
    tolerances = {"rtol": part.rtol, "atol": part.atol}
    answers = [("the reference", key["expected"])]
    answers += [(f"misconception {i}", m["values"]) for i, m in enumerate(key["misconceptions"])]
    for i, (first, a) in enumerate(answers):
        for second, b in answers[i + 1 :]:
            # seed by seed: a submission sees only two
            if any(compare.difference([x], [y], **tolerances) is None for x, y in zip(a, b, strict=True)):
                raise ExerciseError(f"{where}: {first} and {second} cannot be told apart on some seed")
    hints = [m.hint for m in part.misconceptions]
    if len(set(hints)) != len(hints):
        raise ExerciseError(f"{where}: two misconceptions share a hint")


def _pair(exercise: Exercise) -> tuple[str, NotebookNode]:
    notebook = student_notebook(exercise)
    text = jupytext.writes(NotebookNode(notebook, metadata=_header()), fmt="py:percent")
    text = re.sub(r"^# +(format|jupytext)_version: .*\n", "", text, flags=re.MULTILINE)  # must not change with jupytext
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{exercise.name}.py"
        source.write_text(text, encoding="utf-8")
        return text, pairs.read(source)


def _header() -> NotebookNode:
    """What stands at the top of a source; the version of jupytext is left out."""
    return NotebookNode(
        jupytext=NotebookNode(text_representation=NotebookNode(extension=".py", format_name="percent")),
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
    )


def _public_text(exercise: Exercise, keys: dict[str, dict]) -> str:
    parts = [
        {
            "id": p.id,
            "title": p.title,
            "points": p.points,
            "rtol": p.rtol,
            "atol": p.atol,
            "forbid": list(p.forbid),
            "stub": p.stub,
            "check": p.check,
            "key": keys[p.id],
        }
        for p in exercise.parts
    ]
    whole = {"name": exercise.name, "setup": exercise.setup, "parts": parts}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _for_seeds(key: dict[str, Any], n: int) -> dict[str, Any]:
    wrong = [{"hint": m["hint"], "values": m["values"][:n]} for m in key["misconceptions"]]
    return {**key, "expected": key["expected"][:n], "misconceptions": wrong}
