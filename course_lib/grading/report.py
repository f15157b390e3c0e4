r"""Tables and pages for people: CSV for the spreadsheet, JUnit for machines, a page for each student.

Everything in a submission is text of a stranger: control sequences are gone before it comes here, and what a
spreadsheet, a browser or an XML reader could take for more than text is made harmless here.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import quoteattr

from course_lib.grading.compare import points
from course_lib.grading.grade import Grade
from course_lib.grading.runs import GraderError, plain

__all__ = ["feedback_page", "safe_cell", "write_csv", "write_feedback", "write_json", "write_junit"]

MARKS = {"right": "✓", "not attempted": "–", "missing": "–"}
STYLE = """
body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
section{border-left:.3rem solid #b00020;padding-left:1rem;margin:1.5rem 0}section.right{border-color:#1b7f3b}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:0}p{margin:.3rem 0}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"""


def safe_cell(text: str) -> str:
    r"""Text that a spreadsheet takes for text.

    Args:
        text: Anything.

    Returns:
        The text, on one line; with an apostrophe before it where it would begin a formula.

    Example:
        >>> safe_cell('=HYPERLINK("x")')
        '\'=HYPERLINK("x")'
    """
    text = plain(text, longest=1000)
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "|", "%", "＝", "＋", "－", "＠")) else text


def write_csv(grades: Sequence[Grade], path: Path) -> None:
    r"""One line a submission, for a spreadsheet.

    Args:
        grades: In order.
        path: The file; it is replaced as a whole.

    Raises:
        GraderError: If it cannot be written.
    """
    parts = list(dict.fromkeys(p.id for g in grades for p in g.parts))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "student", "status", "score", "of", *parts, "sandbox", "flags", "notes"])
    for grade in grades:
        by_part = {p.id: f"{p.points:g}" for p in grade.parts}
        score = "" if grade.score is None else f"{grade.score:g}"
        line = [safe_cell(grade.file), safe_cell(grade.student), grade.status, score, f"{grade.of:g}"]
        line += [by_part.get(p, "") for p in parts]
        notes = [f"{p.id}: {p.message}" for p in grade.parts if p.message and p.status != "not attempted"]
        table.writerow(
            [*line, grade.sandbox, safe_cell("; ".join(grade.flags)), safe_cell("; ".join(grade.notes + notes))]
        )
    _write(path, text.getvalue())


def write_json(grades: Sequence[Grade], path: Path) -> None:
    r"""Everything that is known about every submission.

    Args:
        grades: In order.
        path: The file.

    Raises:
        GraderError: If it cannot be written.
    """
    _write(path, json.dumps([asdict(g) for g in grades], indent=1, ensure_ascii=False) + "\n")


def write_junit(grades: Sequence[Grade], folder: Path) -> None:
    r"""One JUnit file a submission, for systems that show test results.

    Args:
        grades: In order.
        folder: Where they go.

    Raises:
        GraderError: If one cannot be written.
    """
    for grade in grades:
        cases = []
        for part in grade.parts:
            name = quoteattr(plain(f"{part.id} {part.title}"))
            body = (
                "" if part.status == "right" else f"<failure message={quoteattr(plain(part.message or part.status))}/>"
            )
            cases.append(f"  <testcase classname={quoteattr(plain(grade.file))} name={name}>{body}</testcase>")
        if not grade.parts:
            reason = quoteattr(plain("; ".join([grade.status, *grade.notes])))
            name = f'classname={quoteattr(plain(grade.file))} name="submission"'
            cases.append(f"  <testcase {name}><error message={reason}/></testcase>")
        failures = sum(p.status != "right" for p in grade.parts)
        head = f'<testsuite name={quoteattr(plain(grade.file))} tests="{len(cases)}" failures="{failures}"'
        head += f' errors="{int(not grade.parts)}">'
        body = "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *cases, "</testsuite>", ""])
        _write(folder / f"{_stem(grade)}.xml", body)


def write_feedback(grades: Sequence[Grade], folder: Path) -> None:
    r"""One page a submission, to be given to its student, without anything from elsewhere.

    Args:
        grades: In order.
        folder: Where they go.

    Raises:
        GraderError: If one cannot be written.
    """
    for grade in grades:
        _write(folder / f"{_stem(grade)}.html", feedback_page(grade))


def feedback_page(grade: Grade) -> str:
    r"""What a student reads: points, how each value differs, and the hint.

    Args:
        grade: One submission.

    Returns:
        A page of HTML.

    Example:
        >>> "&lt;b&gt;" in feedback_page(Grade("<b>.ipynb", "<b>", "unreadable", None, 4, notes=["it is empty"]))
        True
    """

    def text(value: str) -> str:
        return html.escape(plain(value, longest=1000))

    score = "no score" if grade.score is None else f"{grade.score:g} of {points(grade.of)}"
    lines = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">']
    lines += ['<meta name="viewport" content="width=device-width">', f"<title>{text(grade.student)}</title>"]
    lines += [f"<style>{STYLE}</style></head><body>", f"<h1>{text(grade.student)}: {score}</h1>"]
    lines.append(f"<p>{text(grade.file)} · status: {text(grade.status)} · sandbox: {text(grade.sandbox)}</p>")
    lines += [f"<p>{text(note)}</p>" for note in grade.notes]
    for part in grade.parts:
        lines.append(f'<section class="{"right" if part.status == "right" else "open"}">')
        lines.append(f"<h2>{MARKS.get(part.status, '✗')} {text(part.id)} {text(part.title)}</h2>")
        lines.append(f"<p>{part.points:g} of {points(part.of)} · {text(part.status)}</p>")
        if part.message:
            lines.append(f"<p>{text(part.message)}</p>")
        lines.append("</section>")
    return "\n".join([*lines, "</body></html>", ""])


def _stem(grade: Grade) -> str:
    """A file name that no two submissions share, whatever they are called."""
    readable = re.sub(r"[^\w.-]+", "_", grade.file.removesuffix(".ipynb"))[:60].strip("._") or "submission"
    return f"{readable}-{hashlib.sha256(grade.file.encode('utf-8', 'replace')).hexdigest()[:6]}"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", newline="")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise GraderError(f"cannot write {path}: {error.strerror}; results so far are in the journal") from error
