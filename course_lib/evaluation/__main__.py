"""The command line: ``python -m course_lib.evaluation leaderboard --data ring8 --seeds 5 --out DIR``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module

import torch

from course_lib.data import IMAGES, TOYS, DataError
from course_lib.evaluation.board import budget_for, leaderboard
from course_lib.evaluation.families import FAMILIES, IMAGE_FAMILIES, from_sampler
from course_lib.evaluation.problem import Family


def entry(name: str) -> Family:
    """A student's own sampler, ``module:function``, as an entry; the module is looked for in the current folder too."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise argparse.ArgumentTypeError(f"expected module:function, got {name!r}")
    try:
        sampler = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"cannot find {name}: {error}") from error
    return partial(from_sampler, sampler)


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    top = argparse.ArgumentParser(prog="python -m course_lib.evaluation")
    board = top.add_subparsers(required=True).add_parser(
        "leaderboard", help="train every family with several seeds, judge all by the same metrics, write the table"
    )
    board.add_argument("--data", required=True, choices=[*TOYS, *IMAGES])
    board.add_argument("--out", required=True, help="folder for the tables and for what is needed to go on")
    board.add_argument("--seeds", type=int, default=5, help="number of seeds (default 5)")
    names = [*FAMILIES, *IMAGE_FAMILIES]
    board.add_argument(
        "--families", nargs="*", choices=names, metavar="FAMILY", help=f"all by default, of {', '.join(names)}"
    )
    board.add_argument(
        "--sampler", action="append", default=[], help="module:function that maps n to n samples; can be repeated"
    )
    board.add_argument("--steps", type=int, help="training steps of every family")
    board.add_argument("--batch-size", type=int, help="examples for each step")
    board.add_argument("--samples", type=int, help="number of samples that each model is judged by")
    board.add_argument("--jobs", type=int, default=1, help="processes that share the work (default 1)")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 if every family has a result."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    sys.path.insert(0, "")
    asked = {k: v for k, v in vars(options).items() if k in ("steps", "batch_size", "samples") and v is not None}
    try:
        every = FAMILIES | IMAGE_FAMILIES
        names = options.families if options.families is not None else [*(every if options.data in IMAGES else FAMILIES)]
        entries = {name: every[name] for name in names}
        entries |= {name.replace(":", "."): entry(name) for name in options.sampler}
        budget = replace(budget_for(options.data), **asked)
        command = f"python -m course_lib.evaluation {' '.join(arguments or sys.argv[1:])}"
        rows = leaderboard(
            entries,
            options.data,
            out=options.out,
            seeds=range(options.seeds),
            budget=budget,
            jobs=options.jobs,
            made_by=command,
        )
    except (ValueError, OSError, DataError, argparse.ArgumentTypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        for error in row.errors:
            print(f"{row.name}, {error}", file=sys.stderr)
    print(f"{options.out}/{options.data}.md")
    return int(any(row.errors for row in rows))


if __name__ == "__main__":
    sys.exit(main())
