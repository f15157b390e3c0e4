"""The sandbox that the tests of the grader need, said loudly when it is missing."""

import os

import pytest

from course_lib.grading.sandbox import Limits, SandboxError, probe

collect_ignore = ["correct"]


@pytest.fixture(scope="session")
def walls() -> str:
    """The sandbox to test in: bubblewrap, or none where somebody has asked for that by name."""
    kind = os.environ.get("COURSE_SANDBOX", "bwrap")
    try:
        probe(kind)
    except SandboxError as error:
        pytest.fail(f"the grader was NOT tested: {error}\nTo test the rest without walls: COURSE_SANDBOX=none")
    return kind


@pytest.fixture(scope="session")
def limits(walls: str) -> Limits:
    return Limits(cell_timeout=30, total_timeout=240, sandbox=walls)
