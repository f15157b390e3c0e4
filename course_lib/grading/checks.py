r"""What runs in the student's kernel: a check computes named values for each seed and hands them over.

In a student's own notebook the values meet those of the public seeds at once, and the student reads a verdict. Under
the grader (the environment names other seeds) the values are only published: whoever patches this module changes what
they hand in, not what is expected of it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from IPython.display import display

from course_lib.grading import compare

__all__ = ["MIME", "PUBLIC_SEEDS", "SEEDS_VARIABLE", "Checks", "WrongAnswer", "encode"]

MIME = "application/vnd.course.values+json"
"""The type under which values travel from the kernel to the grader."""

PUBLIC_SEEDS = (0, 1)
"""The seeds that a student sees; the grader draws others."""

SEEDS_VARIABLE = "COURSE_GRADING_SEEDS"
LARGEST = 20_000  # numbers in one value

Values = Callable[[int], dict[str, Any]]


class WrongAnswer(AssertionError):
    """A part is not right yet; the message says how it differs."""

    def _render_traceback_(self) -> list[str]:  # IPython shows the message alone
        return [str(self)]


class Checks:
    r"""The checks of one exercise notebook.

    Args:
        name: Name of the exercise notebook, without its ending.

    Example:
        >>> check = Checks("00_example")
        >>> @check("0.1")
        ... def values(seed):
        ...     return {"mean": np.arange(seed + 3).mean()}
        0.1: no public values to compare with; yours: mean 1., 1.5
    """

    def __init__(self, name: str) -> None:
        self.name = name
        seeds = os.environ.get(SEEDS_VARIABLE)
        self.published = seeds is not None
        self.seeds = tuple(map(int, seeds.split(","))) if seeds else PUBLIC_SEEDS

    def __call__(self, part: str) -> Callable[[Values], None]:
        r"""Decorate the function that computes a part's values; it runs at once, for every seed.

        Args:
            part: Identifier of the part, such as ``2.1``.

        Returns:
            A decorator.

        Raises:
            WrongAnswer: In a student's own notebook, if the values are not right.
            TypeError: If something other than numbers comes back.
        """

        def run(values: Values) -> None:
            found = [{name: encode(name, value) for name, value in values(seed).items()} for seed in self.seeds]
            if self.published:
                display({MIME: {"part": part, "found": found}, "text/plain": part}, raw=True)
            else:
                self._say(part, found)

        return run

    def _say(self, part: str, found: list[dict]) -> None:
        known = _public(self.name).get(part)
        if known is None:
            shown = ", ".join(
                f"{name} {', '.join(np.array2string(compare.decode(one[name]), precision=4) for one in found)}"
                for name in found[0]
            )
            print(f"{part}: no public values to compare with; yours: {shown}")
            return
        verdict = compare.judge(known["key"], found)
        if not verdict.right:
            raise WrongAnswer(f"✗ {part} {known['title']}: {verdict.message}")
        print(f"✓ {part} {known['title']}: right on the public seeds ({compare.points(known['points'])})")


def encode(name: str, value: Any) -> dict[str, Any]:
    r"""Write an array as JSON that keeps every bit of it.

    Args:
        name: What it is called, for messages.
        value: A number, an array or a tensor, of any shape.

    Returns:
        ``kind`` (``f`` or ``i``), ``shape`` and ``data`` (base64 of float64).

    Raises:
        TypeError: If it does not hold numbers. A bool is a verdict, and a verdict can be forged.
        ValueError: If it holds too many of them.

    Example:
        >>> encode("x", [1.0, 2.0])
        {'kind': 'f', 'shape': [2], 'data': 'AAAAAAAA8D8AAAAAAAAAQA=='}
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        kind = type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)
        raise TypeError(f"{name}: expected an array of numbers, got {kind}")
    if array.size > LARGEST:
        raise ValueError(f"{name}: expected at most {LARGEST} numbers, got shape {array.shape}")
    data = base64.b64encode(array.astype("<f8").tobytes()).decode()
    return {"kind": "f" if array.dtype.kind == "f" else "i", "shape": list(array.shape), "data": data}


def _public(name: str) -> dict[str, dict]:
    path = files("course_lib.grading") / "public" / f"{name}.json"
    return {p["id"]: p for p in json.loads(path.read_text(encoding="utf-8"))["parts"]} if path.is_file() else {}
