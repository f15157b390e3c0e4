r"""Expected against found values, in words that name the difference and never the answer."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Verdict", "decode", "difference", "judge", "points", "same"]

KINDS = {"f": "real numbers", "i": "whole numbers"}


@dataclass(frozen=True)
class Verdict:
    """Whether a part is right, and if not, how it differs and which misconception it looks like."""

    right: bool
    message: str = ""
    hint: str = ""


def points(n: float) -> str:
    r"""Write a number of points.

    Args:
        n: How many.

    Returns:
        The number and the word.

    Example:
        >>> points(1), points(2)
        ('1 point', '2 points')
    """
    return f"{n:g} point{'' if n == 1 else 's'}"


def decode(value: Any) -> np.ndarray:
    r"""Read what :func:`course_lib.grading.checks.encode` wrote, trusting nothing.

    Args:
        value: The JSON of one value.

    Returns:
        A float64 array.

    Raises:
        ValueError: If it is malformed.

    Example:
        >>> decode({"kind": "f", "shape": [2], "data": "AAAAAAAA8D8AAAAAAAAAQA=="})
        array([1., 2.])
    """
    try:
        if value["kind"] not in KINDS:
            raise ValueError("unknown kind")
        shape = tuple(value["shape"])
        if not all(type(n) is int and 0 <= n <= 1 << 20 for n in shape) or len(shape) > 16:
            raise ValueError("not a shape")
        data = np.frombuffer(base64.b64decode(value["data"], validate=True), dtype="<f8")
        if data.size != math.prod(shape):
            raise ValueError("shape and data disagree")
        return data.reshape(shape)
    except (KeyError, TypeError, ValueError, binascii.Error, IndexError) as error:
        raise ValueError("malformed value") from error


def same(expected: np.ndarray, found: np.ndarray, *, rtol: float, atol: float) -> bool:
    r"""Whether all entries agree, :math:`|f - e| \le a + r \, |e|`; NaN equals only NaN, infinity only itself.

    Args:
        expected: Reference.
        found: What is judged.
        rtol: Relative tolerance :math:`r`.
        atol: Absolute tolerance :math:`a`.

    Returns:
        True when shapes and all entries agree.

    Example:
        >>> same(np.array([1.0, np.nan]), np.array([1.001, np.nan]), rtol=0.01, atol=0.0)
        True
    """
    if expected.shape != found.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        close = (
            np.isfinite(found) & np.isfinite(expected) & (np.abs(found - expected) <= atol + rtol * np.abs(expected))
        )
    return bool(np.all(close | (found == expected) | (np.isnan(found) & np.isnan(expected))))


def difference(expected: list[dict], found: Any, *, rtol: float, atol: float) -> str | None:
    r"""Say how found values differ from expected ones: by name, shape, kind, sign, factor; no expected value is shown.

    Args:
        expected: For each seed the encoded values by name.
        found: The same, from a kernel that is not trusted.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Returns:
        A phrase, or None when they agree.

    Example:
        >>> from course_lib.grading.checks import encode
        >>> def seeds(*values):
        ...     return [{"kl": encode("kl", v)} for v in values]
        >>> difference(seeds(1.0, 2.0), seeds(0.5, 1.0), rtol=1e-4, atol=0)
        'kl is 0.5 times what it should be'
        >>> difference(seeds(1.0, 2.0), seeds([1.0], [2.0]), rtol=1e-4, atol=0)
        'kl has shape (1,), expected ()'
    """
    if not isinstance(found, list) or len(found) != len(expected):
        return "there is not one set of values for each seed"
    for e, f in zip(expected, found, strict=True):
        if not isinstance(f, dict) or set(e) != set(f):
            return "other values were handed over than the check computes"
    for name in expected[0]:
        es, fs = [decode(e[name]) for e in expected], []
        for e, f in zip(expected, found, strict=True):
            try:
                fs.append(decode(f[name]))
            except ValueError:
                return f"{name} cannot be read"
            if f[name]["shape"] != e[name]["shape"]:
                return f"{name} has shape {_shape(f[name])}, expected {_shape(e[name])}"
            if f[name]["kind"] != e[name]["kind"]:
                return f"{name} holds {KINDS[f[name]['kind']]}, expected {KINDS[e[name]['kind']]}"
        if not all(same(e, f, rtol=rtol, atol=atol) for e, f in zip(es, fs, strict=True)):
            return f"{name} {_manner(es, fs, rtol=rtol, atol=atol)}"
    return None


def judge(key: dict[str, Any], found: Any) -> Verdict:
    r"""Hold a part's values against its key.

    Args:
        key: ``expected`` values, tolerances ``rtol`` and ``atol``, and known ``misconceptions`` (``hint``, ``values``).
        found: Values of a kernel that is not trusted.

    Returns:
        The verdict, with the hint of the misconception that gives the same values.
    """
    tolerances = {"rtol": key["rtol"], "atol": key["atol"]}
    message = difference(key["expected"], found, **tolerances)
    if message is None:
        return Verdict(True)
    for wrong in key["misconceptions"]:
        if difference(wrong["values"], found, **tolerances) is None:
            return Verdict(False, f"{message}. Hint: {wrong['hint']}", wrong["hint"])
    return Verdict(False, message)


def _shape(value: dict) -> str:
    return str(tuple(value["shape"]))


def _manner(expected: list[np.ndarray], found: list[np.ndarray], **tolerances: float) -> str:
    """In which way arrays of equal shapes differ, over all seeds together."""
    if not all(np.isfinite(f).all() for f in found) and all(np.isfinite(e).all() for e in expected):
        return "is not finite everywhere"

    def agree(change) -> bool:
        return all(same(change(e), f, **tolerances) for e, f in zip(expected, found, strict=True))

    if agree(np.negative):
        return "has the opposite sign"
    if all(e.ndim == 2 and e.shape[0] == e.shape[1] for e in expected) and agree(np.transpose):
        return "is transposed"
    e, f = (np.concatenate([a.ravel() for a in arrays]) for arrays in (expected, found))
    with np.errstate(all="ignore"):
        ratio = f / e
        # two different expected values at least, or the factor would give the answer away
        constant = (
            np.isfinite(ratio).all() and np.ptp(e) > 0.01 * np.abs(e).max() and np.ptp(ratio) < 1e-3 * abs(ratio[0])
        )
        if constant and abs(ratio[0]) > 1e-6 and abs(ratio[0] - 1) > 0.01:
            return f"is {ratio[0]:.3g} times what it should be"
        offset = f - e
        if np.isfinite(offset).all() and np.ptp(e) > 0.01 * np.abs(e).max() and np.ptp(offset) < 1e-3 * abs(offset[0]):
            return "is off by the same amount everywhere"
    wrong = int(np.sum(~np.isclose(f, e, rtol=tolerances["rtol"], atol=tolerances["atol"], equal_nan=True)))
    return f"differs in {wrong} of {len(e)} numbers" if len(e) > 1 else "differs"
