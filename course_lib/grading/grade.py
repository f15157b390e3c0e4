r"""One submission, then a folder of them: points, statuses and a journal that survives a kill."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from course_lib.grading.notebooks import (
    HELPERS,
    Exercise,
    Part,
    Step,
    Submission,
    Unreadable,
    forbidden,
    read_submission,
)
from course_lib.grading.runs import GraderError, answer_key, plain, run
from course_lib.grading.sandbox import Limits

__all__ = [
    "BUCKETS",
    "Grade",
    "Journal",
    "PartGrade",
    "bucket",
    "bucket_seeds",
    "fingerprint",
    "grade_folder",
    "grade_submission",
    "in_order",
    "secret",
    "submissions",
]

BUCKETS = 4
"""Each submission falls into one of a few buckets, by its name and the secret; the reference runs once for each."""

FATES = {
    "timeout": "it took too long and was stopped",
    "died": "its kernel died: it was ended, crashed, or ran out of memory",
    "output-limit": "it wrote too much output and was stopped",
}


@dataclass
class PartGrade:
    """One part; ``status`` is right, wrong, error, not attempted, missing, or how the kernel ended."""

    id: str
    title: str
    points: float
    of: float
    status: str
    message: str = ""
    hint: str = ""


@dataclass
class Grade:
    """One submission; ``score`` is None where none could be given: nothing to read, or the grader itself failed."""

    file: str
    student: str
    status: str
    score: float | None
    of: float
    parts: list[PartGrade] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sandbox: str = ""
    digest: str = ""
    runs: int = 0


def submissions(folder: Path) -> list[Path]:
    r"""The notebooks in a folder and below it, sorted; hidden ones and checkpoints are left out.

    Args:
        folder: Where the submissions lie.

    Returns:
        Paths.

    Raises:
        GraderError: If it is no folder or holds none.
    """
    if not folder.is_dir():
        raise GraderError(f"there is no folder {folder}")
    found = [
        p for p in folder.rglob("*.ipynb") if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]
    if not found:
        raise GraderError(f"there is no .ipynb file in {folder}")
    return sorted(found)


def secret(path: Path) -> bytes:
    r"""Read the secret from a file; make one, readable by its owner only, where there is none.

    Args:
        path: The file.

    Returns:
        The secret.

    Raises:
        GraderError: If it is too short to be one.
    """
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    text = path.read_bytes().strip()
    if len(text) < 16:
        raise GraderError(f"{path}: a secret has at least 16 characters, got {len(text)}")
    return text


def bucket(name: str, key: bytes) -> int:
    r"""The bucket of a submission.

    Args:
        name: Path of the submission below its folder.
        key: The secret.

    Returns:
        A number below :data:`BUCKETS`.

    Example:
        >>> bucket("ann.ipynb", b"a secret of sixteen") == bucket("ann.ipynb", b"a secret of sixteen")
        True
    """
    return (
        hmac.new(key, unicodedata.normalize("NFC", name).encode("utf-8", "replace"), hashlib.sha256).digest()[0]
        % BUCKETS
    )


def bucket_seeds(number: int, key: bytes) -> tuple[int, int]:
    r"""The two seeds of a bucket.

    Args:
        number: The bucket.
        key: The secret.

    Returns:
        Seeds between 1000 and 2**31, so never a public one.
    """
    digest = hmac.new(key, b"seeds of bucket %d" % number, hashlib.sha256).digest()
    return tuple(1000 + int.from_bytes(digest[i : i + 4], "big") % (2**31 - 1000) for i in (0, 4))


def grade_submission(
    exercise: Exercise,
    path: Path,
    *,
    name: str,
    keys: Mapping[str, dict],
    seeds: Sequence[int],
    limits: Limits,
) -> Grade:
    r"""Grade one submission; whatever it does, a grade comes back.

    Args:
        exercise: The reference, or a released exercise.
        path: The submission.
        name: How it is called in reports.
        keys: Expected values by part.
        seeds: Seeds of the checks.
        limits: Time, memory, walls.

    Returns:
        The grade.
    """
    total = sum(p.points for p in exercise.parts)
    grade = Grade(name, _student(name), "ok", None, total, sandbox=limits.sandbox)
    try:
        grade.digest = _digest(path)
        submission = read_submission(path, exercise)
    except Unreadable as error:
        grade.status, grade.notes = "unreadable", [str(error)]
        return grade
    grade.notes += submission.notes
    try:
        _grade_parts(grade, exercise, submission, keys=keys, seeds=seeds, limits=limits)
    except GraderError as error:
        grade.status, grade.score = "grader-error", None
        grade.notes.append(plain(str(error)))
        return grade
    for part in exercise.parts:
        source = submission.cells.get(part.id, "") + "\n" + submission.cells.get(HELPERS, "")
        grade.flags += [f"{part.id} uses {shortcut}" for shortcut in forbidden(source, part.forbid)]
    fates = [p.status for p in grade.parts if p.status in FATES]
    finished = any(p.status in ("right", "wrong", "error") for p in grade.parts)
    grade.status = "ok" if not fates else "partial" if finished else fates[0]
    grade.score = sum(p.points for p in grade.parts)
    return grade


def _grade_parts(
    grade: Grade, exercise: Exercise, submission: Submission, *, keys: Mapping[str, dict], **how: Any
) -> None:
    """Run a submission until every part has had its chance.

    First all parts in order; when one ends the kernel, the rest in a new one. Then, last to first, every part that
    failed without an explanation: whatever an earlier part broke for a later one, here the later one comes first. So
    one failure costs one part.
    """
    cells = dict(submission.cells)
    attempted = [p for p in exercise.parts if p.id in cells and cells[p.id].strip() != p.stub.strip()]
    done: dict[str, PartGrade] = {}

    def rounds(parts: list[Part]) -> None:
        parts = list(parts)
        while parts:
            outcome = run(_steps(exercise, cells, parts), keys=keys, **how)
            grade.runs += 1
            if outcome.ended_by == HELPERS:
                del cells[HELPERS]
                grade.notes.append(f"{HELPERS}: {FATES[outcome.fate]}; the parts were run without it")
                continue
            for part in parts:
                if part.id in outcome.checks or part.id == outcome.ended_by:
                    judged = _judged(part, outcome)
                    if part.id not in done or judged.status == "right" or done[part.id].status != "right":
                        done[part.id] = judged
            if outcome.ended_by is None:
                return
            left = [p for p in parts if p.id not in outcome.checks and p.id != outcome.ended_by]
            if len(left) == len(parts):
                raise GraderError("a run ended in a cell that is nobody's")
            parts = left

    rounds(attempted)
    # the first part has no predecessor to blame; a known misconception or an untouched stub explains itself
    open_cases = [p for p in attempted[1:] if done[p.id].status != "right" and not done[p.id].hint]
    if HELPERS not in submission.cells and len(attempted) < 2:
        open_cases = []
    rounds(open_cases[::-1])
    missing = {p.id: "missing" if p.id not in cells else "not attempted" for p in exercise.parts}
    grade.parts = [
        done.get(p.id)
        or PartGrade(p.id, p.title, 0, p.points, missing[p.id], "the stub is untouched" if p.id in cells else "")
        for p in exercise.parts
    ]


def _steps(exercise: Exercise, cells: Mapping[str, str], parts: Iterable[Part]) -> Iterator[Step]:
    yield Step("setup", "", exercise.setup)
    if cells.get(HELPERS, "").strip():
        yield Step("answer", HELPERS, cells[HELPERS])
    for part in parts:
        yield Step("answer", part.id, cells[part.id])
        # the set-up again: an answer may have taken its names for something else
        yield Step("check", part.id, f"{exercise.setup}\n\n{part.check}")


def _judged(part: Part, outcome: Any) -> PartGrade:
    check, answer = outcome.checks.get(part.id, {}), outcome.answers.get(part.id, {})
    grade = PartGrade(part.id, part.title, 0, part.points, "wrong", check.get("message", ""), check.get("hint", ""))
    if part.id == outcome.ended_by:
        grade.status, grade.message = outcome.fate or "died", FATES[outcome.fate or "died"]
    elif check.get("right"):
        grade.status, grade.points = "right", part.points
    elif "NotImplementedError" in check.get("error", "") and part.title in check.get("error", ""):
        grade.status, grade.message = "not attempted", "the stub is untouched"
    elif error := answer.get("error") or check.get("error"):
        grade.status, grade.message = "error", f"it stops with {plain(error)}"
    return grade


class Journal:
    r"""Every result, on disk at once; the same file is a shard for ``merge`` and the memory of ``--resume``.

    Args:
        path: The ``.jsonl`` file.
        about: What the results depend on; those that depend on something else are not read. None reads all.

    Raises:
        GraderError: If it cannot be written.
    """

    def __init__(self, path: Path, about: str | None) -> None:
        self.path, self.about = path, about

    def read(self) -> dict[str, Grade]:
        """Results so far, by file; lines that were cut are left out."""
        found = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                    if self.about in (record.pop("about"), None):
                        record["parts"] = [PartGrade(**part) for part in record["parts"]]
                        found[record["file"]] = Grade(**record)
                except (ValueError, KeyError, TypeError):
                    continue
        return found

    def clear(self) -> None:
        """Begin anew."""
        self._to_disk("w", "")

    def add(self, grade: Grade) -> None:
        """Keep a result."""
        self._to_disk("a", json.dumps({"about": self.about, **asdict(grade)}) + "\n")

    def _to_disk(self, mode: str, text: str) -> None:
        try:
            cut = mode == "a" and self.path.is_file() and self.path.read_bytes()[-1:] not in (b"", b"\n")
            with open(self.path, mode, encoding="utf-8") as file:
                file.write("\n" * cut + text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GraderError(f"cannot write {self.path}: {error.strerror}; mend that, then --resume") from error


def fingerprint(exercise: Exercise, limits: Limits, key: bytes) -> str:
    r"""What results depend on: the reference, the limits and the secret.

    Args:
        exercise: The reference.
        limits: Time, memory, walls.
        key: The secret.

    Returns:
        A short digest.
    """
    content = json.dumps([asdict(exercise) | {"notebook": None}, asdict(limits)], default=str, sort_keys=True)
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()[:16]


def grade_folder(
    exercise: Exercise,
    folder: Path,
    *,
    journal: Journal,
    key: bytes,
    limits: Limits,
    executor: Executor,
    resume: bool = False,
    shard: tuple[int, int] = (1, 1),
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Grade]:
    r"""Grade every submission in a folder.

    Args:
        exercise: The reference.
        folder: Where the submissions lie.
        journal: Keeps every result at once.
        key: The secret behind the seeds.
        limits: Time, memory, walls, for each run.
        executor: Any executor of ``concurrent.futures``, or one that behaves like it, such as Dask's.
        resume: Take over results of the journal, where file and reference are unchanged.
        shard: Which part of the folder, and of how many.
        report: Called with the numbers of finished and of all submissions.

    Returns:
        Grades, sorted by file.

    Raises:
        GraderError: If the reference fails, or the journal cannot be written.
    """
    files = submissions(folder)[shard[0] - 1 :: shard[1]]
    names = {p: str(p.relative_to(folder)).encode("utf-8", "replace").decode() for p in files}
    before = journal.read() if resume else {}
    grades = {
        p: g for p in files if (g := before.get(names[p])) and g.digest == _digest(p) and g.status != "grader-error"
    }
    if not resume:
        journal.clear()
    todo = [p for p in files if p not in grades]
    numbers = {p: bucket(names[p], key) for p in todo}
    needed = sorted(set(numbers.values()))
    running = [executor.submit(answer_key, exercise, seeds=bucket_seeds(n, key), limits=limits) for n in needed]
    keys = {number: future.result() for number, future in zip(needed, running, strict=True)}
    futures: dict[Future, Path] = {}
    for path, number in numbers.items():
        how = {"keys": keys[number], "seeds": bucket_seeds(number, key), "limits": limits}
        futures[executor.submit(grade_submission, exercise, path, name=names[path], **how)] = path
    report(len(grades), len(files))
    try:
        for future in as_completed(futures):
            path = futures[future]
            try:
                grades[path] = future.result()
            except Exception as error:  # of the grader: a line, not a lost class
                note = plain(f"{type(error).__name__}: {error}")
                of = sum(p.points for p in exercise.parts)
                student = _student(names[path])
                grades[path] = Grade(
                    names[path], student, "grader-error", None, of, notes=[note], sandbox=limits.sandbox
                )
            journal.add(grades[path])
            report(len(grades), len(files))
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return in_order(grades.values())


def in_order(grades: Iterable[Grade]) -> list[Grade]:
    r"""Sort grades by file, and say where two submissions have the same name.

    Args:
        grades: In any order.

    Returns:
        The same, sorted.
    """
    ordered = sorted(grades, key=lambda g: g.file)
    names = [unicodedata.normalize("NFC", g.student).casefold() for g in ordered]
    often = {name for name, n in Counter(names).items() if n > 1}
    for grade, name in zip(ordered, names, strict=True):
        note = "another submission has the same name"
        if name in often and note not in grade.notes:
            grade.notes.append(note)
    return ordered


def _student(name: str) -> str:
    """Whose a submission is: the first folder of its path, or its own name."""
    return Path(name).parts[0].removesuffix(".ipynb")


def _digest(path: Path) -> str:
    """Digest of a plain file of acceptable size, and nothing for anything else."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 26:
            return ""
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
