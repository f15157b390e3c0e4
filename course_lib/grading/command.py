r"""The command: ``python -m course_lib.grading release | check | grade | merge``."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from course_lib import pairs
from course_lib.grading import report
from course_lib.grading.checks import PUBLIC_SEEDS
from course_lib.grading.compare import points
from course_lib.grading.grade import (
    Grade,
    Journal,
    fingerprint,
    grade_folder,
    grade_submission,
    in_order,
    secret,
)
from course_lib.grading.notebooks import Exercise, ExerciseError, Unreadable, load, read_submission
from course_lib.grading.release import PUBLIC, outdated, release, released
from course_lib.grading.runs import GraderError
from course_lib.grading.sandbox import KINDS, Limits, SandboxError, probe

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands.

    Args:
        arguments: Command line, without the program's name.

    Returns:
        Exit status: 0 when all went well; 1 for an error, or when ``check`` found a part that is not right.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ExerciseError, GraderError, SandboxError, pairs.PairError) as error:
        print(f"grading: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"grading: {error.filename or ''}: {error.strerror}; results so far are in the journal", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("grading: interrupted; go on with --resume", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m course_lib.grading", description="Grade exercise notebooks.")
    commands = parser.add_subparsers(required=True, metavar="release | check | grade | merge")
    walls = argparse.ArgumentParser(add_help=False)
    walls.add_argument("--cell-timeout", type=_positive, default=10, help="seconds for one cell (10)")
    walls.add_argument("--total-timeout", type=_positive, default=60, help="seconds for one run of a notebook (60)")
    walls.add_argument("--memory", type=_size, default=2 << 30, help="private memory of a kernel (2G)")
    walls.add_argument("--sandbox", choices=KINDS, help="walls around a kernel (bwrap; for check: none)")
    outputs = argparse.ArgumentParser(add_help=False)
    outputs.add_argument("--out", type=Path, default=Path("grades.csv"), help="the table (grades.csv)")
    outputs.add_argument("--json", type=Path, help="everything, as JSON")
    outputs.add_argument("--junit", type=Path, help="folder for one JUnit file a submission")
    outputs.add_argument("--feedback", type=Path, help="folder for one page a submission")

    make = commands.add_parser("release", parents=[walls], help="gate a solution and write the student's pair")
    make.add_argument("solutions", nargs="+", type=Path)
    make.add_argument("--verify", action="store_true", help="only say what is out of date")
    make.set_defaults(run=_release)
    look = commands.add_parser("check", parents=[walls], help="check your own notebook, with the public seeds")
    look.add_argument("notebook", type=Path)
    look.set_defaults(run=_check)
    mark = commands.add_parser("grade", parents=[walls, outputs], help="grade a folder of submissions")
    mark.add_argument("reference", type=Path, help="the solution, such as notebooks/solutions/02_autoencoders.py")
    mark.add_argument("folder", type=Path, help="folder of submissions")
    mark.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (all cores)")
    mark.add_argument("--seed-file", type=Path, help="the secret (beside the table; made when it is missing)")
    mark.add_argument("--shard", type=_shard, default=(1, 1), help="I/N: only the I-th of N parts of the folder")
    mark.add_argument("--resume", action="store_true", help="take over what an interrupted run has finished")
    mark.set_defaults(run=_grade)
    join = commands.add_parser("merge", parents=[outputs], help="join the journals of shards")
    join.add_argument("journals", nargs="+", type=Path, help="the .jsonl files beside the tables of the shards")
    join.set_defaults(run=_merge)
    return parser


def _limits(options: argparse.Namespace, *, default: str) -> Limits:
    limits = Limits(options.cell_timeout, options.total_timeout, options.memory, options.sandbox or default)
    probe(limits.sandbox)
    return limits


def _release(options: argparse.Namespace) -> int:
    lines = []
    for source in pairs.sources(options.solutions):
        if options.verify:
            lines += outdated(source)
        else:
            print(f"{release(source, limits=_limits(options, default='none'))}: released")
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


def _check(options: argparse.Namespace) -> int:
    exercise, keys = _released_for(options.notebook)
    limits = _limits(options, default="none")
    name = options.notebook.name
    grade = grade_submission(exercise, options.notebook, name=name, keys=keys, seeds=PUBLIC_SEEDS, limits=limits)
    for part in grade.parts:
        print(f"{report.MARKS.get(part.status, '✗')} {part.id} {part.title}: {part.message or part.status}")
    for note in grade.notes + grade.flags:
        print(f"note: {note}")
    if grade.score is None:
        print(f"{grade.status}: no points could be given")
        return 1
    print(f"{grade.score:g} of {points(grade.of)} on the public seeds")
    return 0 if grade.score == grade.of else 1


def _released_for(notebook: Path) -> tuple[Exercise, dict[str, dict]]:
    """The exercise by the notebook's name; by its cells, when a browser has called it something else."""
    try:
        return released(notebook.stem)
    except ExerciseError:
        for path in sorted(PUBLIC.glob("*.json")):
            with suppress(Unreadable):
                read_submission(notebook, released(path.stem)[0])
                return released(path.stem)
        raise


def _grade(options: argparse.Namespace) -> int:
    exercise, limits = load(options.reference.with_suffix(".py")), _limits(options, default="bwrap")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    key = secret(options.seed_file or options.out.with_suffix(".seed"))
    journal = Journal(options.out.with_suffix(".jsonl"), fingerprint(exercise, limits, key))
    with ThreadPoolExecutor(max(1, options.jobs)) as executor, tqdm(unit="submission") as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        grades = grade_folder(
            exercise,
            options.folder,
            journal=journal,
            key=key,
            limits=limits,
            executor=executor,
            resume=options.resume,
            shard=options.shard,
            report=progress,
        )
    _write(grades, options)
    return 0


def _merge(options: argparse.Namespace) -> int:
    grades: dict[str, Grade] = {}
    for path in options.journals:
        if not path.is_file():
            raise GraderError(f"there is no journal {path}")
        found = Journal(path, None).read()
        if not found:
            raise GraderError(f"{path} holds no results")
        for name, grade in found.items():
            if name in grades and grades[name] != grade:
                raise GraderError(f"{path}: {name} has another result in a journal before it")
            grades[name] = grade
    _write(in_order(grades.values()), options)
    return 0


def _write(grades: Sequence[Grade], options: argparse.Namespace) -> None:
    report.write_csv(grades, options.out)
    if options.json:
        report.write_json(grades, options.json)
    if options.junit:
        report.write_junit(grades, options.junit)
    if options.feedback:
        report.write_feedback(grades, options.feedback)
    other = [f"{n} {s}" for s in dict.fromkeys(g.status for g in grades) if (n := sum(g.status == s for g in grades))]
    print(f"{len(grades)} submissions ({', '.join(other)}): {options.out}")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([MG])", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 2G or 800M, got {text}")
    return int(match[1]) << {"M": 20, "G": 30}[match[2]]


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, got {text}")
    return int(match[1]), int(match[2])
