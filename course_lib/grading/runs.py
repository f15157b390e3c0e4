r"""One notebook through pytest and nbval, in a process with a time limit; what happened is read from a log."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat

from course_lib.grading.notebooks import Exercise, ExerciseError, Step, run_notebook
from course_lib.grading.sandbox import Limits

__all__ = ["GraderError", "Outcome", "Workshop", "answer_key", "plain", "run"]

STARTING = 30  # seconds until the first cell: the grader's own time, not the student's
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.?")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


class GraderError(RuntimeError):
    """The grader itself failed; never a student's zero."""


@dataclass(frozen=True)
class Outcome:
    """What happened in one run: the records of its cells, and which key ended it, with its fate."""

    answers: dict[str, dict[str, Any]]
    checks: dict[str, dict[str, Any]]
    ended_by: str | None = None
    fate: str | None = None


class Workshop:
    """A private folder for one run; leftovers of graders that were killed are swept when one opens."""

    def __init__(self) -> None:
        base = "/tmp" if os.path.isdir("/tmp") else None  # short: the path of a socket has 107 bytes
        for old in Path(base or tempfile.gettempdir()).glob("grade-*-*"):
            owner = old.name.split("-")[1]
            if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
                shutil.rmtree(old, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"grade-{os.getpid()}-", dir=base))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def plain(text: str, *, longest: int = 300) -> str:
    r"""Text of a stranger without control sequences, on one line and not too long.

    Args:
        text: Anything.
        longest: Characters to keep.

    Returns:
        Printable text.

    Example:
        >>> plain("\x1b[31mred\x1b[0m\nline")
        'red line'
    """
    text = " ".join(CONTROL.sub("", ANSI.sub("", text)).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def run(
    steps: Iterable[Step],
    *,
    seeds: Sequence[int],
    limits: Limits,
    keys: Mapping[str, dict] | None = None,
) -> Outcome:
    r"""Run cells in a fresh kernel.

    Args:
        steps: Cells in order.
        seeds: Seeds of the checks.
        limits: Time, memory, walls.
        keys: For each key the expected values; without one, a check's values are recorded.

    Returns:
        What happened.

    Raises:
        GraderError: If pytest failed before any of the student's cells ran.
    """
    plan = {"limits": asdict(limits), "seeds": list(seeds), "keys": dict(keys or {}), "grader": os.getpid()}
    try:
        with Workshop() as folder:
            (folder / "run.ipynb").write_text(nbformat.writes(run_notebook(steps)), encoding="utf-8")
            late = _pytest(folder, plan, limits.total_timeout)
            return _outcome(folder, late)
    except OSError as error:
        raise GraderError(f"a run could not be made: {error.strerror or error}") from error


def _pytest(folder: Path, plan: dict, seconds: float) -> bool:
    """Start pytest in an environment of its own, and end it when its time is over; returns whether it was."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--color=no", "--noconftest", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-p", "no:benchmark", "-p", "course_lib.grading.plugin", "--nbval-lax"]
    command += ["-c", os.devnull, "--rootdir", str(folder), "--grader-log", str(folder / "log")]
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")}
    environment = {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    with tempfile.TemporaryFile("w+") as file, open(folder / "output", "wb") as output:
        json.dump(plan, file)
        file.flush()
        file.seek(0)
        process = subprocess.Popen(
            [*command, "--grader-plan", str(file.fileno()), str(folder / "run.ipynb")],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[file.fileno()],
            start_new_session=True,
        )
        try:
            process.wait(seconds + STARTING)
            return False
        except subprocess.TimeoutExpired:
            return True
        finally:
            if process.poll() is None:
                with suppress(OSError):
                    os.killpg(process.pid, 9)
                process.wait()


def _outcome(folder: Path, late: bool) -> Outcome:
    records = []
    if (folder / "log").is_file():
        for line in (folder / "log").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line may be cut
                records.append(json.loads(line))
    answers = {r["key"]: r for r in records if r["event"] == "end" and r["kind"] != "check"}
    checks = {r["key"]: r for r in records if r["event"] == "end" and r["kind"] == "check"}
    failed = [r["error"] for r in records if r["kind"] == "setup" and r.get("error")]
    if failed or not records or (records[-1]["kind"] == "setup" and records[-1]["event"] == "begin"):
        output = (folder / "output").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = (failed or output[-1:] or ["no output"])[0]
        raise GraderError(f"the run ended before the first answer: {plain(reason)}")
    last = records[-1]
    if last["event"] == "begin":  # pytest itself ended in the middle of a cell
        return Outcome(answers, checks, last["key"], "timeout" if late else "died")
    return Outcome(answers, checks, last["key"] if last.get("fate") else None, last.get("fate"))


def answer_key(exercise: Exercise, *, seeds: Sequence[int], limits: Limits) -> dict[str, dict]:
    r"""Run the reference and every misconception, and keep their values.

    Args:
        exercise: The reference.
        seeds: Seeds of the checks.
        limits: Time, memory, walls; time is tripled.

    Returns:
        For each part its ``expected`` values, tolerances and ``misconceptions``.

    Raises:
        ExerciseError: If a part hands over no values.
        GraderError: If the run fails as a whole.
    """
    steps = [Step("setup", "", exercise.setup)]
    for part in exercise.parts:
        steps += [Step("answer", part.id, part.answer), Step("check", part.id, part.check)]
        for i, wrong in enumerate(part.misconceptions):
            steps += [Step("answer", f"{part.id}#{i}", wrong.source), Step("check", f"{part.id}#{i}", part.check)]
    slow = Limits(**{**asdict(limits), "cell_timeout": 3 * limits.cell_timeout, "total_timeout": 300})
    outcome = run(steps, seeds=seeds, limits=slow)

    def values(key: str) -> list:
        record = outcome.checks.get(key, {})
        error = outcome.answers.get(key, {}).get("error") or record.get("error")
        if error or record.get("found") is None:
            reason = plain(error or outcome.fate or "no values were handed over")
            raise ExerciseError(f"{exercise.name}: part {key.replace('#', ', misconception ')}: {reason}")
        return record["found"]

    return {
        part.id: {
            "expected": values(part.id),
            "rtol": part.rtol,
            "atol": part.atol,
            "misconceptions": [
                {"hint": wrong.hint, "values": values(f"{part.id}#{i}")} for i, wrong in enumerate(part.misconceptions)
            ],
        }
        for part in exercise.parts
    }
