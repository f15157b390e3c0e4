"""The walls themselves: what a process inside sees, may do, and may use."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make import ROOT

from course_lib.grading import runs
from course_lib.grading.notebooks import Step
from course_lib.grading.runs import run
from course_lib.grading.sandbox import INSIDE, Limits, kernel_command

LOOK = """
import json, os, resource, socket, sys
def attempt(action):
    try:
        action()
        return "done"
    except Exception as error:
        return type(error).__name__
def listen_outside():
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "processes": sorted(p for p in os.listdir("/proc") if p.isdigit()),
    "environment": sorted(os.environ),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "outside": attempt(listen_outside),
    "user": os.getuid(),
    "capabilities": sum(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")),
    "no new privileges": status.get("NoNewPrivs", "").strip(),
    "root": sorted(os.listdir("/")),
    "course": sorted(os.listdir(sys.argv[2])),
    "repository": attempt(lambda: os.listdir(sys.argv[3] + "/notebooks")),
    "git": attempt(lambda: os.listdir(sys.argv[3] + "/.git")),
    "passwords": attempt(lambda: open("/etc/passwd")),
    "writes": {p: attempt(lambda: open(p + "/x", "w"))
               for p in ("/usr", sys.argv[2] + "/course_lib", sys.prefix, "/tmp", "/")},
    "memory": resource.getrlimit(resource.RLIMIT_DATA),
    "file": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
    "number": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "raise": attempt(lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40))),
    "root again": attempt(lambda: os.setuid(0)) if os.getuid() else "done",
    "tmp": os.statvfs("/tmp").f_frsize * os.statvfs("/tmp").f_blocks,
    "shm": os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks,
}))
"""


@pytest.fixture(scope="module")
def inside(walls, tmp_path_factory):
    """What a process inside reports."""
    if walls != "bwrap":
        pytest.skip("without walls by request: COURSE_SANDBOX")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        program = [sys.executable, "-c", LOOK, port, INSIDE, str(ROOT)]
        command = kernel_command(Limits(memory=1 << 30), tmp_path_factory.mktemp("k"), program=program)
        environment = {**os.environ, "SECRET_OF_THE_TEACHER": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_sees_no_other_process_and_no_environment(inside):
    assert len(inside["processes"]) <= 3
    assert "SECRET_OF_THE_TEACHER" not in inside["environment"]
    assert not [name for name in inside["environment"] if "GRAD" in name or "PYTEST" in name]


def test_it_reaches_nobody(inside):
    assert inside["interfaces"] == ["lo"] and inside["outside"] == "ConnectionRefusedError"


def test_it_is_nobody_without_a_way_back(inside):
    assert inside["user"] >= 60000 and inside["capabilities"] == 0
    assert inside["no new privileges"] == "1" and inside["root again"] == "PermissionError"


def test_it_sees_the_library_and_neither_solutions_nor_passwords(inside):
    assert inside["course"] == ["course_lib"]
    assert inside["repository"] == inside["git"] == inside["passwords"] == "FileNotFoundError"
    assert "home" not in inside["root"]


def test_it_writes_to_its_own_folder_only(inside):
    assert inside["writes"].pop("/tmp") == "done"
    assert set(inside["writes"].values()) <= {"OSError", "PermissionError"}


def test_it_may_use_only_so_much(inside):
    assert inside["memory"] == [1 << 30, 1 << 30] and inside["raise"] in ("ValueError", "PermissionError")
    assert inside["file"] == 64 << 20 and inside["number"] <= 128 and inside["core"] == 0
    assert inside["tmp"] == 256 << 20 and inside["shm"] == 64 << 20


SETUP = Step("setup", "", "import os, time")


def test_a_cell_has_its_time_and_a_run_has_its_time(limits, monkeypatch):
    steps = [SETUP, Step("answer", "1", "time.sleep(60)")]
    started = time.monotonic()
    outcome = run(steps, seeds=(0,), limits=Limits(1, 240, sandbox=limits.sandbox))
    assert (outcome.ended_by, outcome.fate) == ("1", "timeout") and time.monotonic() - started < 55
    monkeypatch.setattr(runs, "STARTING", 0)
    steps = [SETUP, *(Step("answer", str(i), "time.sleep(2)") for i in range(60))]
    outcome = run(steps, seeds=(0,), limits=Limits(60, 30, sandbox=limits.sandbox))
    assert outcome.fate == "timeout" and outcome.ended_by in map(str, range(60))
    assert "59" not in outcome.answers


def test_a_set_up_that_fails_is_the_graders_error(limits):
    with pytest.raises(runs.GraderError, match="before the first answer: ZeroDivisionError"):
        run([Step("setup", "", "1 / 0"), Step("answer", "1", "1")], seeds=(0,), limits=limits)


def test_a_run_leaves_nothing_behind(limits):
    before = set(Path("/tmp").glob("grade-*"))
    run([SETUP, Step("answer", "1", "open('/tmp/mark', 'w')")], seeds=(0,), limits=limits)
    assert {p for p in Path("/tmp").glob("grade-*") if f"-{os.getpid()}-" in p.name} <= before
    assert limits.sandbox == "none" or not Path("/tmp/mark").exists()
