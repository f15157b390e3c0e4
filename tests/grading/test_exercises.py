"""Every exercise: its reference, its stubs, its misconceptions, and right answers that look different."""

import re

import numpy as np
import pytest
from make import ROOT, SOLUTIONS, function_of

from course_lib import pairs
from course_lib.grading import compare
from course_lib.grading.checks import PUBLIC_SEEDS
from course_lib.grading.notebooks import Step, forbidden, load
from course_lib.grading.release import GATE_SEEDS, gate, outdated, released
from course_lib.grading.runs import run

NAMES = [p.stem for p in pairs.sources([SOLUTIONS])]


@pytest.fixture(scope="module", params=NAMES)
def exercise(request):
    return load(SOLUTIONS / f"{request.param}.py")


@pytest.fixture(scope="module")
def keys(exercise, limits):
    """The gate: the reference twice and the stubs once, on twenty seeds."""
    return gate(exercise, limits=limits)


def right_answers(exercise):
    """Blocks of ``correct/NAME.py``: the part, and the cell."""
    text = (ROOT / "tests/grading/correct" / f"{exercise.name}.py").read_text()
    imports, *blocks = re.split(r"^# (?=\d+\.\d+$)", text, flags=re.MULTILINE)
    return [(block.split("\n")[0], imports + block.split("\n", 1)[1]) for block in blocks]


def test_there_are_twenty_seeds():
    assert len(set(GATE_SEEDS)) == 20 and GATE_SEEDS[: len(PUBLIC_SEEDS)] == PUBLIC_SEEDS


def test_an_exercise_has_four_to_six_parts_of_rising_difficulty(exercise):
    assert 4 <= len(exercise.parts) <= 6
    first, last = exercise.parts[: len(exercise.parts) // 2], exercise.parts[len(exercise.parts) // 2 :]
    assert sum(p.points for p in first) / len(first) <= sum(p.points for p in last) / len(last)
    text = "\n".join(c.source for c in exercise.notebook.cells if c.cell_type == "markdown")
    for part in exercise.parts:
        section = text.split(f"## {part.id} {part.title} ({compare.points(part.points)})")[1].split("\n## ")[0]
        assert "**In**" in section and "**Out**" in section
        assert f'raise NotImplementedError("{part.id} {part.title}")' in part.stub
    assert f"{sum(p.points for p in exercise.parts):g} points" in text


def test_what_students_receive_is_up_to_date(exercise):
    assert outdated(SOLUTIONS / f"{exercise.name}.py") == []


def test_the_reference_is_right_and_the_stub_nothing_on_twenty_seeds(exercise, keys):
    assert set(keys) == {p.id for p in exercise.parts}  # gate has raised otherwise
    assert all(len(key["expected"]) == 20 for key in keys.values())


def test_the_public_values_are_those_of_the_reference(exercise, keys):
    _, public = released(exercise.name)
    for part, key in public.items():
        assert compare.judge({**key, "misconceptions": []}, keys[part]["expected"][: len(PUBLIC_SEEDS)]).right


def test_every_misconception_gets_its_own_hint_and_no_other(exercise, keys):
    for part in exercise.parts:
        assert len(part.misconceptions) >= 3
        for i, wrong in enumerate(part.misconceptions):
            for pair in range(0, 20, 2):  # as a submission meets them: two seeds
                key = {**keys[part.id], "expected": keys[part.id]["expected"][pair : pair + 2]}
                key["misconceptions"] = [
                    {**m, "values": m["values"][pair : pair + 2]} for m in keys[part.id]["misconceptions"]
                ]
                verdict = compare.judge(key, key["misconceptions"][i]["values"])
                assert not verdict.right and verdict.hint == wrong.hint
                assert wrong.hint in verdict.message


def test_a_hint_gives_no_answer_away(exercise):
    for part in exercise.parts:
        body = [line.strip() for line in part.answer.splitlines() if line.strip() and "def " not in line]
        for wrong in part.misconceptions:
            assert not any(line in wrong.hint for line in body)
            assert not re.search(r"np\.|torch\.|axis|keepdims", wrong.hint)


def test_other_right_answers_are_right_on_twenty_seeds(exercise, keys, limits):
    answers = right_answers(exercise)
    assert all(sum(part == p.id for part, _ in answers) >= 3 for p in exercise.parts)
    steps, many = [Step("setup", "", exercise.setup)], {}
    for i, (part, source) in enumerate(answers):
        assert function_of(exercise, part) in source
        many[f"{part}#{i}"] = keys[part]
        steps += [Step("answer", f"{part}#{i}", source), Step("check", f"{part}#{i}", exercise.part(part).check)]
    outcome = run(steps, seeds=GATE_SEEDS, limits=limits, keys=many)
    assert [key for key, record in outcome.answers.items() if "error" in record] == []
    assert {key: record for key, record in outcome.checks.items() if not record.get("right")} == {}
    assert set(outcome.checks) == set(many)


def test_a_reference_uses_no_shortcut_that_it_forbids(exercise):
    for part in exercise.parts:
        assert forbidden(part.answer, part.forbid) == []


def test_values_are_finite_where_the_reference_says_so(keys):
    for key in keys.values():
        assert all(np.isfinite(compare.decode(v)).all() for one in key["expected"] for v in one.values())
