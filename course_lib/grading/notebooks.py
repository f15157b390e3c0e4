r"""The parts of a reference, and the cells of a submission that are moved into it.

Of a submission only the source text of cells that carry ``metadata.exercise.id`` is ever used.
"""

from __future__ import annotations

import ast
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from course_lib import pairs

__all__ = [
    "HELPERS",
    "Exercise",
    "ExerciseError",
    "Misconception",
    "Part",
    "Step",
    "Submission",
    "Unreadable",
    "forbidden",
    "load",
    "read_submission",
    "run_notebook",
    "stubbed",
    "student_notebook",
]

HELPERS = "helpers"
"""Identifier of the cell for a student's own imports and helpers; it has no points."""

LARGEST_FILE = 5 << 20  # bytes
LARGEST_CELL = 200_000  # characters
STEERING = re.compile(r"(NBVAL_|PYTEST_VALIDATE_)(?=[A-Z])")
SOLUTION_TAGS = {"exercise-only", "remove-cell", "hide-input", "hide-cell", "hide-output"}


class ExerciseError(ValueError):
    """A reference breaks a rule; the message names the part."""


class Unreadable(ValueError):
    """A submission cannot be read as a notebook of this exercise; the message says why."""


@dataclass(frozen=True)
class Misconception:
    """A known wrong answer and the hint that goes with it."""

    hint: str
    source: str


@dataclass(frozen=True)
class Part:
    """One graded part: what the student gets, how it is checked, and what is known about answers."""

    id: str
    title: str
    points: float
    stub: str
    check: str
    rtol: float
    atol: float
    forbid: tuple[str, ...] = ()
    answer: str = ""
    misconceptions: tuple[Misconception, ...] = ()


@dataclass(frozen=True)
class Exercise:
    """An exercise notebook: the cell that sets up, and its parts in order."""

    name: str
    setup: str
    parts: tuple[Part, ...]
    notebook: NotebookNode = field(default_factory=new_notebook, repr=False, compare=False)

    def part(self, identifier: str) -> Part:
        """Find a part.

        Args:
            identifier: Such as ``2.1``.

        Returns:
            The part.
        """
        return next(p for p in self.parts if p.id == identifier)


@dataclass(frozen=True)
class Submission:
    """The student's cells by identifier, and what there is to say about them."""

    cells: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One cell of a notebook to run: ``kind`` is setup, answer or check; ``key`` names whose it is."""

    kind: str
    key: str
    source: str


def stubbed(source: str, message: str) -> str:
    r"""Keep the signatures and docstrings of an answer, and empty its functions.

    Args:
        source: The answer's cell.
        message: What ``NotImplementedError`` says.

    Returns:
        The cell that a student receives.

    Raises:
        ExerciseError: If there is no function to empty.

    Example:
        >>> print(stubbed("def f(x):\n    '''Twice x.'''\n    return 2 * x", "0.1 Double"))
        def f(x):
            '''Twice x.'''
            raise NotImplementedError("0.1 Double")
    """
    lines = source.splitlines()
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    outer = [f for f in functions if not any(f is not g and f in set(ast.walk(g)) for g in functions)]
    if not outer:
        raise ExerciseError(f"{message}: an answer defines a function, so that it can be emptied")
    for function in sorted(outer, key=lambda f: -f.lineno):
        first = function.body[0]
        keeps = 1 if ast.get_docstring(function) else 0
        start = first.end_lineno if keeps else first.lineno - 1
        margin = " " * first.col_offset
        lines[start : function.end_lineno] = [
            f"{margin}raise NotImplementedError({json.dumps(message, ensure_ascii=False)})"
        ]
    return "\n".join(lines)


def load(source: Path) -> Exercise:
    r"""Read a reference: a percent-format solution whose cells say what they are.

    Cells carry ``tags=["setup"]``, ``exercise={"id", "title", "points", "forbid"}``, ``grade={"part", "rtol", "atol"}``
    or ``misconception="id"``, whose first comment lines are its hint.

    Args:
        source: The ``.py`` file.

    Returns:
        The exercise.

    Raises:
        ExerciseError: If a rule is broken.
    """
    try:
        notebook = pairs.read(source)
    except (OSError, pairs.PairError) as error:
        raise ExerciseError(str(error)) from error
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    setups = [c.source for c in cells if "setup" in c.metadata.get("tags", [])]
    if len(setups) != 1:
        raise ExerciseError(f"{source}: expected one cell with the tag 'setup', got {len(setups)}")
    answers = [c for c in cells if c.metadata.get("exercise", {}).get("id") not in (None, HELPERS)]
    parts = [_part(source, answer, cells) for answer in answers]
    identifiers = [p.id for p in parts]
    if not parts or len(set(identifiers)) != len(parts):
        raise ExerciseError(f"{source}: expected parts with different ids, got {identifiers}")
    _independent(source, parts)
    return Exercise(source.stem, setups[0], tuple(parts), notebook)


def _part(source: Path, answer: NotebookNode, cells: Sequence[NotebookNode]) -> Part:
    about = answer.metadata.exercise
    missing = {"id", "title", "points"} - set(about)
    if missing:
        raise ExerciseError(f"{source}: part {about.get('id')} lacks {', '.join(sorted(missing))}")
    where = f"{source}: part {about.id}"
    checks = [c for c in cells if c.metadata.get("grade", {}).get("part") == about.id]
    if len(checks) != 1:
        raise ExerciseError(f"{where}: expected one check, got {len(checks)}")
    wrong = []
    for cell in cells:
        if cell.metadata.get("misconception") == about.id:
            comment = re.match(r"(?:#[^\n]*\n)+", cell.source)
            if not comment:
                raise ExerciseError(f"{where}: a misconception begins with its hint, as a comment")
            hint = " ".join(line.lstrip("# ").strip() for line in comment.group().splitlines())
            wrong.append(Misconception(hint, cell.source))
    return Part(
        id=about.id,
        title=about.title,
        points=about.points,
        stub=stubbed(answer.source, f"{about.id} {about.title}"),
        check=checks[0].source,
        rtol=checks[0].metadata.grade.get("rtol", 1e-4),
        atol=checks[0].metadata.grade.get("atol", 1e-6),
        forbid=tuple(about.get("forbid", ())),
        answer=answer.source,
        misconceptions=tuple(wrong),
    )


def _independent(source: Path, parts: Iterable[Part]) -> None:
    """A part must not use what another part defines: one failure costs one part."""

    def names(code: str, context: type) -> set[str]:
        return {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}

    def defines(code: str) -> set[str]:
        return {n.name for n in ast.parse(code).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}

    for part in parts:
        used = names(part.answer, ast.Load) | names(part.check, ast.Load)
        for other in parts:
            shared = (used & defines(other.answer)) - defines(part.answer)
            if other is not part and shared:
                raise ExerciseError(f"{source}: part {part.id} uses {', '.join(sorted(shared))} of part {other.id}")


def student_notebook(exercise: Exercise) -> NotebookNode:
    r"""The notebook that a student receives: answers emptied, misconceptions and outputs left out.

    Args:
        exercise: The reference.

    Returns:
        A notebook without outputs.
    """
    cells = []
    for cell in exercise.notebook.cells:
        if "misconception" in cell.metadata or "solution-only" in cell.metadata.get("tags", []):
            continue
        cell = NotebookNode(cell.copy(), metadata=NotebookNode(cell.metadata.copy()))
        about = cell.metadata.get("exercise")
        if about and about["id"] != HELPERS:
            cell.source = exercise.part(about["id"]).stub
        tags = [t for t in cell.metadata.get("tags", []) if t not in SOLUTION_TAGS]
        cell.metadata.pop("tags", None)
        if tags:
            cell.metadata.tags = tags
        cells.append(cell)
    return NotebookNode(exercise.notebook, cells=cells)


def read_submission(path: Path, exercise: Exercise) -> Submission:
    r"""Read the student's cells out of a file that may be anything.

    Args:
        path: The file.
        exercise: Whose parts are looked for.

    Returns:
        Source text by identifier, with comments that would steer nbval made harmless.

    Raises:
        Unreadable: If there is no notebook of this exercise in it.
    """
    raw = _json(path)
    cells = raw.get("cells") if isinstance(raw, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("it is not a notebook: it has no list of cells")
    stubs = {p.id: p.stub.strip() for p in exercise.parts}
    known, found, notes, others = [*stubs, HELPERS], {}, [], set()
    for cell in cells:
        identifier = _identifier(cell)
        if identifier is None:
            continue
        if identifier not in known:
            others.add(identifier)
            continue
        source = cell.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str) or len(source) > LARGEST_CELL:
            notes.append(f"{identifier}: the cell holds no text, or more than {LARGEST_CELL} characters")
            continue
        source = STEERING.sub(r"\1 ", source.encode("utf-8", "replace").decode("utf-8"))
        if identifier in found:
            notes.append(f"{identifier}: the cell is there more than once; the last one with an answer counts")
            if source.strip() == stubs.get(identifier):
                continue
        found[identifier] = source
    if not any(i in stubs for i in found):
        seen = f"; it holds {', '.join(sorted(others))[:80]}" if others else ""
        raise Unreadable(f"it holds no cell of {exercise.name}{seen}")
    notes += [f"{i}: the cell is missing" for i in stubs if i not in found]
    return Submission(found, tuple(dict.fromkeys(notes)))


def _json(path: Path) -> Any:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unreadable(f"it cannot be opened: {error.strerror}") from error
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise Unreadable("it is not a plain file")
    with os.fdopen(handle, "rb") as file:
        if about.st_size > LARGEST_FILE:
            raise Unreadable(f"it has {about.st_size / 1e6:.1f} MB, more than {LARGEST_FILE / 1e6:.1f} MB")
        if not about.st_size:
            raise Unreadable("it is empty")
        try:
            return json.loads(file.read(LARGEST_FILE + 1).decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise Unreadable("it is not text in UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise Unreadable("it is not JSON") from error


def _identifier(cell: Any) -> str | None:
    try:
        identifier = cell["metadata"]["exercise"]["id"]
        return identifier if isinstance(identifier, str) and cell.get("cell_type") == "code" else None
    except (KeyError, TypeError):
        return None


def forbidden(source: str, names: Iterable[str]) -> list[str]:
    r"""Which library shortcuts an answer uses, as far as reading it can tell.

    Args:
        source: The student's cell.
        names: Last parts of names, such as ``subspace_angles``.

    Returns:
        Those that occur, sorted.

    Example:
        >>> forbidden("from scipy.linalg import subspace_angles as f", ["subspace_angles"])
        ['subspace_angles']
    """
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    used = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    used |= {a.name.split(".")[-1] for n in nodes if isinstance(n, ast.ImportFrom | ast.Import) for a in n.names}
    used |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return sorted(used & set(names))


def run_notebook(steps: Iterable[Step]) -> NotebookNode:
    r"""A notebook for the plugin: each cell says what it is; only checks are compared.

    Args:
        steps: Cells in order.

    Returns:
        The notebook.

    Example:
        >>> run_notebook([Step("check", "2.1", "1 + 1")]).cells[0].metadata
        {'step': {'kind': 'check', 'key': '2.1'}, 'tags': ['nbval-check-output']}
    """
    notebook = new_notebook()
    for step in steps:
        tag = "nbval-check-output" if step.kind == "check" else "nbval-ignore-output"
        cell = new_code_cell(step.source, execution_count=1)  # nbval compares only cells that have been run
        cell.metadata = NotebookNode(step=NotebookNode(kind=step.kind, key=step.key), tags=[tag])
        notebook.cells.append(cell)
    return notebook
