r"""nbval inside walls: a plugin for pytest that gives nbval a kernel which may die, flood or hang without harm.

It replaces three things of nbval: the kernel (sandboxed, its death noticed at once, its output capped), the comparison
(values within tolerances instead of stored text) and the reply (a cell that failed in silence has failed). Keys come
through an open file that is read once and closed; the kernel never sees them.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import nbval.plugin
import zmq
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from nbval.kernel import RunningKernel

from course_lib.grading import compare
from course_lib.grading.checks import MIME, SEEDS_VARIABLE
from course_lib.grading.sandbox import Limits, kernel_command

__all__ = ["Client", "Fatal", "Kernel", "Manager", "pytest_addoption", "pytest_configure"]

OUTPUT_LIMIT = 8 << 20  # bytes in one run
MESSAGE_LIMIT = 4 << 20
OWN_MEMORY = 3 << 30  # of the process that runs pytest
FOLDER_LIMIT = 16 << 20  # bytes that a kernel may leave beside its sockets


class Fatal(RuntimeError):
    """The kernel is gone; ``fate`` says how: ``died``, ``timeout`` or ``output-limit``."""

    def __init__(self, fate: str, message: str) -> None:
        super().__init__(message)
        self.fate = fate


class Client(BlockingKernelClient):
    """A client that takes no message above a size."""

    def _create_connected_socket(self, channel: str, identity: bytes | None = None) -> zmq.Socket:
        self.context.sockopts[zmq.MAXMSGSIZE] = MESSAGE_LIMIT
        self.context.sockopts[zmq.RCVHWM] = 5000
        return super()._create_connected_socket(channel, identity)


class Manager(KernelManager):
    """A manager whose connection file the kernel's own user can read."""

    def write_connection_file(self, **kwargs: object) -> None:
        super().write_connection_file(**kwargs)
        os.chmod(self.connection_file, 0o644)


class Kernel(RunningKernel):
    """The kernel of one submission."""

    limits: Limits
    seeds: tuple[int, ...]

    def __init__(self, kernel_name: str, cwd: str | None = None, startup_timeout: float = 60) -> None:
        self.messages: deque[dict] = deque()
        self.received, self.watched = 0, 0.0
        self.fate = self.failed = self.error = None
        self.folder = Path(tempfile.mkdtemp(prefix="k", dir=cwd))  # short: the path of a socket has 107 bytes
        self.folder.chmod(0o777)  # the folder above it is closed
        environment = {SEEDS_VARIABLE: ",".join(map(str, self.seeds))}
        command = kernel_command(self.limits, self.folder, environment=environment)

        class Specs(KernelSpecManager):
            def get_kernel_spec(self, name: str) -> KernelSpec:
                return KernelSpec(argv=command, display_name="grader", language="python", interrupt_mode="message")

        manager = Manager(
            kernel_name="grader",
            kernel_spec_manager=Specs(),
            transport="ipc",
            ip=str(self.folder / "s"),
            connection_file=str(self.folder / "c.json"),
        )
        manager.client_class = f"{__name__}.Client"
        root = str(Path(__file__).parents[2])
        outside = {**os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "COURSE_UNATTENDED": "1"}
        with open(os.devnull, "w") as nowhere:
            manager.start_kernel(stdout=nowhere, stderr=nowhere, cwd=str(self.folder), env=outside)
        self.km, self.kc = manager, manager.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=startup_timeout)
        self._ensure_iopub_up()

    def begin(self) -> None:
        """Forget the error of the cell before."""
        self.failed = self.error = None

    def end(self, fate: str, message: str) -> Fatal:
        """Stop the kernel for good and say why."""
        self.fate = self.fate or fate
        self.stop()
        return Fatal(self.fate, message)

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        """Next message of a stream; output is taken in all the time, so that a flood is noticed."""
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while True:
            if self.fate:
                raise Fatal(self.fate, "the kernel was stopped")
            if stream == "shell":
                with suppress(Empty):
                    return self._received(self.kc.get_shell_msg, 0.05)
                self._drain(0.0)
            else:
                if not self.messages:
                    self._drain(0.1)
                if self.messages:
                    return self.messages.popleft()
            if not self.is_alive():
                raise self.end("died", "the kernel died: it was ended, crashed, or ran out of memory")
            self._watch()
            if time.monotonic() > deadline:
                raise Empty

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Wait for the reply and keep its status, which nbval does not look at."""
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while True:
            message = self.get_message("shell", timeout=max(0.0, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") == msg_id:
                if message["content"].get("status") != "ok":
                    self.failed = str(message["content"].get("ename", "error"))[:100]
                return

    def interrupt(self) -> None:
        """End a cell that takes too long, and the kernel with it: what is left of it cannot be trusted."""
        raise self.end("timeout", "the time was up")

    def stop(self) -> None:
        """Stop the kernel and remove its folder; twice does no harm."""
        if hasattr(self, "km"):
            with suppress(Exception):
                super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _received(self, get: Any, timeout: float) -> dict:
        try:
            message = get(timeout=timeout)
            if not all(isinstance(message[k], dict) for k in ("header", "parent_header", "content")):
                raise TypeError("not a message")
            return message
        except Empty:
            raise
        except Exception as error:  # what a hostile kernel sends may fail anywhere in the client
            raise self.end("died", f"the kernel sent what is no message ({type(error).__name__})") from error

    def _drain(self, block: float) -> None:
        with suppress(Empty):
            while True:
                message = self._received(self.kc.get_iopub_msg, block)
                block = 0.0
                self.received += len(str(message["content"]))
                if self.received > OUTPUT_LIMIT:
                    raise self.end("output-limit", f"more than {OUTPUT_LIMIT >> 20} MB of output")
                if message.get("msg_type") == "error":
                    content = message["content"]
                    self.error = f"{str(content.get('ename'))[:100]}: {str(content.get('evalue'))[:500]}"
                self.messages.append(message)

    def _watch(self) -> None:
        if time.monotonic() - self.watched > 0.5:
            self.watched = time.monotonic()
            with suppress(OSError):
                entries = list(os.scandir(self.folder))
                if len(entries) > 64 or sum(e.stat(follow_symlinks=False).st_size for e in entries) > FOLDER_LIMIT:
                    raise self.end("output-limit", "the kernel filled the folder of its sockets")


class Log:
    """What happened, one JSON line at once for each event: it is there even when this process is killed."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open as long as the process)

    def write(self, **record: object) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()


def pytest_addoption(parser: Any) -> None:
    """Declare the two options that :mod:`course_lib.grading.runs` passes."""
    group = parser.getgroup("grader")
    group.addoption("--grader-plan", type=int, help="file descriptor of the plan: limits, seeds, keys")
    group.addoption("--grader-log", help="file for what happened")


def pytest_configure(config: Any) -> None:
    """Put the grader's kernel, comparison and record in nbval's place."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (OWN_MEMORY, hard))
    with os.fdopen(config.option.grader_plan) as file:
        plan = json.load(file)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: when the grader is killed, this process is too
    if os.getppid() != plan["grader"]:  # it was killed already
        os._exit(1)
    log = Log(config.option.grader_log)
    limits = Limits(**plan["limits"])
    Kernel.limits, Kernel.seeds = limits, tuple(plan["seeds"])
    nbval.plugin.RunningKernel = Kernel
    cell_class = nbval.plugin.IPyNbCell
    run = cell_class.runtest

    def compare_outputs(self: Any, test: list, ref: list, skip_compare: object = None) -> bool:
        handed_over = [o["data"][MIME] for o in test if MIME in o.get("data", {})]
        single = len(handed_over) == 1 and isinstance(handed_over[0], dict)
        found = handed_over[0].get("found") if single else None
        key = plan["keys"].get(self.cell.metadata.step.key)
        if key is None:  # a reference: its values become the key
            self.seen = {"found": found}
            return found is not None
        verdict = compare.judge(key, found)
        self.seen = {"right": verdict.right, "message": verdict.message, "hint": verdict.hint}
        self.comparison_traceback = [verdict.message]
        return verdict.right

    def runtest(self: Any) -> None:
        step, kernel = self.cell.metadata.step, self.parent.kernel
        self.seen: dict[str, object] = {}
        trusted = step.kind == "setup"  # imports take long on a busy machine
        config.option.nbval_cell_timeout = limits.total_timeout if trusted else limits.cell_timeout
        kernel.begin()
        log.write(event="begin", kind=step.kind, key=step.key)
        try:
            run(self)
            if kernel.failed:
                self.raise_cell_error(f"the cell failed in silence: {kernel.failed}")
        except Exception as error:
            if not kernel.is_alive():
                kernel.fate = kernel.fate or "died"
                self.session.shouldstop = f"{step.key}: {kernel.fate}"
            if not self.seen or kernel.failed or kernel.fate:
                self.seen = {"error": kernel.error or kernel.failed or f"{type(error).__name__}: {str(error)[:200]}"}
            raise
        finally:
            log.write(event="end", kind=step.kind, key=step.key, fate=kernel.fate, **self.seen)

    cell_class.compare_outputs, cell_class.runtest = compare_outputs, runtest
