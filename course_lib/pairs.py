r"""Notebook pairs: the ``.py`` file is the source, the ``.ipynb`` beside it is generated and executed.

Three commands, and no file times anywhere:

- ``python -m course_lib.pairs execute notebooks/02_autoencoders.py`` runs the source and stores its outputs;
- ``python -m course_lib.pairs refresh`` takes changed text into the notebook when no code changed;
- ``python -m course_lib.pairs check`` says where a pair disagrees, and changes nothing.

Executing twice gives the same bytes: cell ids are derived from the content of the cells, timing is not recorded, and
metadata that depends on the machine is left out.

Exercises are pairs, too, but nobody executes them: ``python -m course_lib.grading release`` writes them from their
solutions, and a search in a folder passes over them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

__all__ = ["PairError", "execute", "problems", "read", "refresh", "signature", "sources", "write"]

KEPT_METADATA = ("tags", "mystnb", "exercise", "grade", "misconception", "jupyter")
NOT_SEARCHED = {".ipynb_checkpoints", "exercises"}
LARGEST_NOTEBOOK = 3_000_000  # bytes
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users|tmp|opt|content|farm)/[\w.-]+")
STEERING_COMMENT = re.compile(r"^\s*#+\s*(NBVAL_|PYTEST_VALIDATE_)", re.MULTILINE)


class PairError(RuntimeError):
    """A source cannot be read or executed; the message names the notebook and the cell."""


def sources(paths: Iterable[str | Path]) -> list[Path]:
    """Find the sources of notebooks.

    Args:
        paths: Percent-format ``.py`` files, notebooks, or folders to search.

    Returns:
        The ``.py`` files, sorted.

    Raises:
        PairError: If a path does not exist.

    Example:
        >>> sources([])
        []
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            found |= {p for p in path.rglob("*.py") if not NOT_SEARCHED & set(p.relative_to(path).parts)}
        elif path.with_suffix(".py").is_file():
            found.add(path.with_suffix(".py"))
        else:
            raise PairError(f"there is no notebook source {path.with_suffix('.py')}")
    return sorted(found)


def read(source: Path) -> NotebookNode:
    """Read a percent-format source as a notebook without outputs, with ids derived from its content.

    Args:
        source: The ``.py`` file.

    Returns:
        The notebook.

    Raises:
        PairError: If the header does not say that this is the percent format.
    """
    text = source.read_text(encoding="utf-8")
    if "format_name: percent" not in text.split("# %%", 1)[0]:
        raise PairError(f"{source}: the header must hold text_representation with 'format_name: percent'")
    notebook = jupytext.reads(text, fmt="py:percent")
    # jupytext notes its own version; the file must not change when jupytext does
    notebook.metadata = NotebookNode(
        jupytext=NotebookNode(text_representation=NotebookNode(extension=".py", format_name="percent")),
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[tuple[str, str]] = Counter()
    for cell in notebook.cells:
        cell.source = cell.source.strip("\n")  # formatters put blank lines before a function
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in KEPT_METADATA})
        key = (cell.cell_type, cell.source)
        seen[key] += 1
        digest = hashlib.sha256(f"{source.stem}|{key[0]}|{seen[key]}|{key[1]}".encode())
        cell["id"] = digest.hexdigest()[:8]
    return notebook


def execute(source: Path, *, timeout: int = 3600) -> float:
    """Execute a source and store the notebook beside it; after a failure the old notebook is still there.

    Args:
        source: The ``.py`` file.
        timeout: Longest time for one cell, in seconds.

    Returns:
        Seconds it took.

    Raises:
        PairError: If a cell fails; the message names it and its error.
    """
    notebook, started = read(source), time.monotonic()
    client = NotebookClient(
        notebook,
        timeout=timeout,
        record_timing=False,
        resources={"metadata": {"path": str(source.parent)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute(env={**os.environ, "COURSE_UNATTENDED": "1"})
    except CellExecutionError as error:
        raise PairError(f"{source}: a cell failed: {error.ename}: {error.evalue}\n{_failed_cell(notebook)}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise PairError(f"{source}: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _merged_streams(cell.outputs)
    notebook.metadata.language_info = NotebookNode(name="python")
    write(notebook, source.with_suffix(".ipynb"))
    return time.monotonic() - started


def refresh(source: Path, *, code_may_differ: bool = False) -> None:
    """Take changed text into the stored notebook without executing it; outputs stay where they are.

    Args:
        source: The ``.py`` file.
        code_may_differ: Keep outputs although a code cell changed: right only when the change cannot change an output,
            as that of an address in a comment or an installation command.

    Raises:
        PairError: If there is no stored notebook, or code changed, so that the notebook must be executed.
    """
    path = source.with_suffix(".ipynb")
    if not path.is_file():
        raise PairError(f"there is no {path} to refresh; run: make notebooks NB={source.stem}")
    notebook, stored = read(source), nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    new, old = ([c for c in n.cells if c.cell_type == "code"] for n in (notebook, stored))
    same_code = [c.source for c in new] == [c.source for c in old]
    if len(new) != len(old) or not (same_code or code_may_differ):
        raise PairError(f"{source}: code changed since it was executed; run: make notebooks NB={source.stem}")
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    write(notebook, path)


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook to a temporary file, then rename it: the old file stays whole until the new one is.

    Args:
        notebook: The notebook.
        path: Where it goes.

    Raises:
        PairError: If it cannot be written.
    """
    nbformat.validate(notebook)
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise PairError(f"cannot write {path}: {error.strerror or error}") from error


def signature(notebook: NotebookNode) -> list[tuple[str, str, str, dict]]:
    """What must agree in a pair: type, id, source and metadata of each cell.

    Args:
        notebook: The notebook.

    Returns:
        One entry for each cell.

    Example:
        >>> signature(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Text", id="a")]))
        [('markdown', 'a', 'Text', {})]
    """
    return [
        (
            c.cell_type,
            c.get("id", ""),
            c.source.rstrip("\n"),
            {k: c.metadata[k] for k in KEPT_METADATA if k in c.metadata},
        )
        for c in notebook.cells
    ]


def problems(source: Path) -> list[str]:
    """Say what is wrong with a pair: it disagrees, was not executed, failed, is too large, or hides something.

    Args:
        source: The ``.py`` file.

    Returns:
        One line for each problem; none when the pair is in order.
    """
    path = source.with_suffix(".ipynb")
    rerun = f"run: make notebooks NB={source.stem}"
    try:
        expected = read(source)
    except PairError as error:
        return [str(error)]
    if not path.is_file():
        return [f"{source}: there is no {path.name} beside it; {rerun}"]
    try:
        found = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        return [f"{path}: not a notebook ({type(error).__name__}); {rerun}"]
    lines = []
    a, b = signature(expected), signature(found)
    if a != b:
        i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        lines.append(f"{source}: {path.name} differs from it at cell {i}; {rerun}")
    if path.stat().st_size > LARGEST_NOTEBOOK:
        lines.append(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB; a notebook stays under {LARGEST_NOTEBOOK / 1e6:.0f} MB"
        )
    for i, cell in enumerate(found.cells):
        lines += [f"{path}, cell {i}: {problem}" for problem in _cell_problems(cell)]
    return lines


def _cell_problems(cell: NotebookNode) -> Iterable[str]:
    if cell.cell_type != "code":
        return
    if STEERING_COMMENT.search(cell.source):
        yield "a comment steers nbval (NBVAL_... or PYTEST_VALIDATE_...); checks must run as they stand"
    if cell.source.strip() and cell.execution_count is None:
        yield "was not executed"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"stores an error: {output.ename}"
        if output.output_type == "stream" and output.name == "stderr":
            yield f"stores a warning: {output.text.strip().splitlines()[0][:100]}"
        if "image/png" in output.get("data", {}) and not output.metadata.get("image/png", {}).get("alt"):
            yield "shows a figure without a description: use notebook.show(figure, alt=...)"
        text = output.get("text", "") + "".join(v for k, v in output.get("data", {}).items() if k == "text/plain")
        if match := MACHINE_PATH.search(text):
            yield f"stores a path of one machine: {match.group()}"


def _merged_streams(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where they are cut depends on timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _failed_cell(notebook: NotebookNode) -> str:
    for i, cell in enumerate(notebook.cells):
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return f"  in cell {i}:\n" + "\n".join(f"    {line}" for line in cell.source.splitlines()[:12])
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the three commands.

    Args:
        arguments: Command line, without the program's name.

    Returns:
        Exit status: 0 when all is well.
    """
    parser = argparse.ArgumentParser(prog="python -m course_lib.pairs", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["execute", "refresh", "check"])
    parser.add_argument("paths", nargs="*", default=["notebooks"], help="sources, notebooks or folders")
    options = parser.parse_args(arguments)
    try:
        found = sources(options.paths)
        if options.command == "execute":
            for source in found:
                print(f"{source}: executed in {execute(source):.0f} s", flush=True)
            return 0
        if options.command == "refresh":
            for source in found:
                refresh(source)
            return 0
    except PairError as error:
        print(error, file=sys.stderr)
        return 1
    lines = [line for source in found for line in problems(source)] + _orphans(options.paths)
    print("\n".join(lines) if lines else f"{len(found)} {'pair agrees' if len(found) == 1 else 'pairs agree'}")
    return 1 if lines or not found else 0


def _orphans(paths: Iterable[str | Path]) -> list[str]:
    folders = [path for path in map(Path, paths) if path.is_dir()]
    notebooks = [
        p for folder in folders for p in folder.rglob("*.ipynb") if not NOT_SEARCHED & set(p.relative_to(folder).parts)
    ]
    return [
        f"{p}: there is no {p.with_suffix('.py').name} beside it"
        for p in sorted(notebooks)
        if not p.with_suffix(".py").exists()
    ]


if __name__ == "__main__":
    sys.exit(main())
