r"""What a chapter needs: one setup line, claims that can fail, figures with a description, visible source."""

from __future__ import annotations

import ast
import base64
import html
import inspect
import os
import random
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import torch
from IPython.display import HTML, Markdown, display

from course_lib import plot
from course_lib.plot import Figure, png
from course_lib.train import attended

__all__ = ["PROFILES", "ClaimError", "Run", "check", "drawing", "setup", "show", "show_source"]

T = TypeVar("T")

PROFILES = ("quick", "full")
"""The two sizes of a chapter: *quick* runs in seconds on embedded data, *full* makes the figures of the book."""


class ClaimError(AssertionError):
    """A claim of the book does not hold here."""


@dataclass(frozen=True)
class Run:
    """What :func:`setup` has decided: where to compute, how much, and from which seed."""

    name: str
    profile: str
    device: torch.device
    seed: int

    def pick(self, *, quick: T, full: T) -> T:
        """Choose by profile; the only place where the two differ.

        Args:
            quick: The value in the quick profile.
            full: The value in the full profile.

        Returns:
            One of the two.

        Example:
            >>> Run("demo", "quick", torch.device("cpu"), 0).pick(quick=8, full=28)
            8
        """
        return quick if self.profile == "quick" else full


def setup(name: str, *, profile: str | None = None, seed: int = 0) -> Run:
    r"""Prepare a notebook: fix every seed, choose the device and the profile, set the figure style.

    The profile is, in this order: the argument; the environment variable ``COURSE_PROFILE``; *full* on Colab with a
    GPU; *quick*.

    Args:
        name: Name of the chapter.
        profile: ``quick`` or ``full``.
        seed: Seed of Python, NumPy and PyTorch.

    Returns:
        The decisions, as a :class:`Run`.

    Raises:
        ValueError: If the profile is neither ``quick`` nor ``full``.

    Example:
        >>> run = setup("demo", profile="quick")
        demo: quick profile, cpu, seed 0
    """
    on_gpu = torch.cuda.is_available()
    profile = profile or os.environ.get("COURSE_PROFILE") or ("full" if on_gpu and _on_colab() else "quick")
    if profile not in PROFILES:
        raise ValueError(f"the profile must be 'quick' or 'full', got {profile!r}")
    if on_gpu:  # the same bits on every run
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (scikit-learn draws from the global state)
    torch.manual_seed(seed)
    plot.use_style()
    run = Run(name, profile, torch.device("cuda" if on_gpu else "cpu"), seed)
    print(f"{name}: {profile} profile, {torch.cuda.get_device_name() if on_gpu else 'cpu'}, seed {seed}")
    if profile == "quick" and attended():
        print("This is the small version, on embedded data. For the figures of the book: setup(..., profile='full').")
    return run


def check(statement: str, ok: bool | np.bool_ | torch.Tensor, measured: str = "") -> None:
    r"""State a claim, and fail when it does not hold.

    Args:
        statement: The claim, in words that are true in both profiles.
        ok: Whether it holds, as the result of a comparison.
        measured: The figures behind it. They may differ between machines; the statement may not.

    Raises:
        ClaimError: If ``ok`` is false.
        ValueError: If the line would break: a newline in either text, or a square bracket in ``measured``.
        TypeError: If ``ok`` is not the result of a comparison, but something that merely counts as true.

    Example:
        >>> check("the error is below the margin", 0.3 < 1.0, f"error {0.3:.1f}, margin {1.0:.1f}")
        ✓ the error is below the margin  [measured: error 0.3, margin 1.0]
    """
    if isinstance(ok, torch.Tensor) and ok.ndim == 0 and ok.dtype == torch.bool:
        ok = ok.item()
    if not isinstance(ok, bool | np.bool_):
        raise TypeError(f"check needs the result of a comparison, True or False, got {type(ok).__name__}")
    if "\n" in statement:
        raise ValueError(f"a claim is printed on one line and holds no line break, got {statement!r}")
    if "]" in measured or "\n" in measured:
        raise ValueError(
            f"what was measured is printed in square brackets on one line and holds neither, got {measured!r}"
        )
    line = statement + (f"  [measured: {measured}]" if measured else "")
    if not ok:
        raise ClaimError(f"✗ {line}")
    print(f"✓ {line}")


def show(figure: Figure, *, alt: str) -> None:
    r"""Show a figure together with a description for those who cannot see it.

    Args:
        figure: The figure.
        alt: What a reader should learn from the figure, in a sentence or two.

    Raises:
        ValueError: If the description is empty.

    Example:
        >>> figure, axes = plot.subplots()
        >>> show(figure, alt=" ")
        Traceback (most recent call last):
        ...
        ValueError: every figure needs a description: show(figure, alt='what it shows')
    """
    if not alt.strip():
        raise ValueError("every figure needs a description: show(figure, alt='what it shows')")
    width = round(figure.get_figwidth() * 100)
    display(
        {"image/png": base64.b64encode(png(figure)).decode(), "text/plain": f"Figure: {alt}"},
        metadata={"image/png": {"alt": alt, "width": width}},
        raw=True,
    )


def drawing(name: str, *, alt: str) -> HTML:
    r"""Show a drawing of the course; it takes the colours of the page, light or dark.

    Args:
        name: Name of the drawing.
        alt: What a reader should learn from the drawing, in a sentence or two.

    Returns:
        The drawing, as inline SVG.

    Raises:
        ValueError: If there is no such drawing.

    Example:
        >>> "<svg" in drawing("autoencoder", alt="Data, encoder, code, decoder, reconstruction.").data
        True
    """
    drawings = {path.name.removesuffix(".svg"): path for path in (files("course_lib") / "drawings").iterdir()}
    if name not in drawings:
        raise ValueError(f"no drawing is called {name!r}; there are {', '.join(sorted(drawings))}")
    svg = drawings[name].read_text(encoding="utf-8")
    label = (
        f'role="img" aria-label="{html.escape(alt)}" style="display:block;width:100%;max-width:720px;margin:1em auto"'
    )
    return HTML(svg.replace("<svg", f"<svg {label}", 1))


def show_source(obj: Any) -> None:
    r"""Show the code that runs when ``obj`` is used, without its docstring.

    Args:
        obj: A function, a class, a method or a module.

    Raises:
        TypeError: If ``obj`` has no Python source.

    Example:
        >>> from course_lib.models.autoencoder import Autoencoder
        >>> show_source(Autoencoder.loss)
        <IPython.core.display.Markdown object>
    """
    try:
        source = _without_docstrings(inspect.getsource(obj))
    except (OSError, TypeError, SyntaxError) as error:  # SyntaxError: the line that holds a lambda is no statement
        raise TypeError(f"{obj!r} has no Python source to show: expected a function, a class or a module") from error
    display(Markdown(f"```python\n{source}```"))


def _without_docstrings(source: str) -> str:
    margin = source[: len(source) - len(source.lstrip())]  # textwrap.dedent fails on strings that begin further left
    lines = [line.removeprefix(margin) for line in source.splitlines(keepends=True)]
    for node in ast.walk(ast.parse("".join(lines))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        docstring = node.body[0] if ast.get_docstring(node) else None
        alone = docstring and not lines[docstring.lineno - 1][: docstring.col_offset].strip()
        if alone and len(node.body) > 1:  # a body of nothing but a docstring still needs it
            for i in range(docstring.lineno - 1, docstring.end_lineno):
                lines[i] = ""
            if docstring.end_lineno < len(lines) and not lines[docstring.end_lineno].strip():
                lines[docstring.end_lineno] = ""
    return "".join(lines)


def _on_colab() -> bool:
    return find_spec("google") is not None and find_spec("google.colab") is not None
