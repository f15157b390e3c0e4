r"""The walls around a kernel: what it sees, how much it may use, and how to say that there are none.

With bubblewrap a kernel has no network, sees the system read-only and of the course only the library, has a private
``/tmp`` of limited size, no capabilities and a user of its own. Without it there is only the explicit choice ``none``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KINDS", "Limits", "SandboxError", "kernel_command", "probe"]

KINDS = ("bwrap", "none")
LIBRARY = Path(__file__).parent.parent
INSIDE = "/course"  # where a kernel sees course_lib
ADDRESS_SPACE = 6 << 30  # beside private memory: PyTorch maps some GB of libraries that it never touches


class SandboxError(RuntimeError):
    """There is no sandbox here; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """What one run of one notebook may use: seconds a cell and in all, bytes of private memory, which walls."""

    cell_timeout: float = 10.0
    total_timeout: float = 60.0
    memory: int = 2 << 30
    sandbox: str = "bwrap"


def probe(kind: str) -> None:
    r"""Make sure that a kind of sandbox works here.

    Args:
        kind: ``bwrap`` or ``none``.

    Raises:
        SandboxError: If it does not.

    Example:
        >>> probe("none")
    """
    if kind == "none":
        return
    if kind not in KINDS:
        raise SandboxError(f"the sandbox must be one of {', '.join(KINDS)}, got {kind!r}")
    anyway = "Or grade without walls, on a machine that has nothing to lose: --sandbox none"
    missing = [name for name in ("bwrap", "prlimit", "setpriv") if shutil.which(name) is None]
    if missing:
        raise SandboxError(
            f"no {', '.join(missing)} here. Debian, Ubuntu: apt-get install bubblewrap util-linux. {anyway}"
        )
    command = kernel_command(Limits(), Path("/"), program=[shutil.which("true") or "/usr/bin/true"], writable=())
    tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        advice = (
            "the machine is a container that may not make namespaces: run it with --privileged, or grade outside it"
            if os.geteuid() == 0
            else "where user namespaces are restricted (Ubuntu 24.04), an administrator can allow them: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
        reason = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
        raise SandboxError(f"bubblewrap does not work here: {reason}. Perhaps {advice}. {anyway}")


def kernel_command(
    limits: Limits,
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    program: list[str] | None = None,
    writable: tuple[Path, ...] | None = None,
) -> list[str]:
    r"""The command that starts a kernel inside its walls.

    Args:
        limits: What it may use.
        folder: Holds the connection file and the sockets.
        environment: More variables for the kernel.
        program: What to start instead of a kernel.
        writable: Folders that it may write to; by default ``folder``.

    Returns:
        The command; ``{connection_file}`` stands where jupyter puts the connection file.

    Example:
        >>> kernel_command(Limits(sandbox="none"), Path("/nowhere"))[-1]
        '{connection_file}'
    """
    program = program or [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    prlimit = shutil.which("prlimit")
    limited = [f"--data={limits.memory}", f"--as={limits.memory + ADDRESS_SPACE}", f"--fsize={64 << 20}", "--core=0"]
    if limits.sandbox == "none":
        return [prlimit, *limited, "--", *program] if prlimit else program
    python = Path(sys.executable).parent
    variables = {
        "HOME": "/tmp",
        "PATH": str(python),  # without a compiler: libraries that look for one would call it
        "PYTHONPATH": INSIDE,
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "COURSE_UNATTENDED": "1",
        **(environment or {}),
    }
    arguments = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for name, value in variables.items():
        arguments += ["--setenv", name, value]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in ("lib", "lib64", "bin"):
        if Path("/", name).is_symlink():
            arguments += ["--symlink", f"usr/{name}", f"/{name}"]
        elif Path("/", name).is_dir():
            arguments += ["--ro-bind", f"/{name}", f"/{name}"]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/dev/shm"]
    arguments += ["--perms", "1777", "--size", str(256 << 20), "--tmpfs", "/tmp"]
    made: set[Path] = set()
    for path in sorted({Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}):
        if path != Path("/usr"):
            arguments += [*_parents(path, made), "--ro-bind", str(path), str(path)]
    arguments += ["--perms", "0755", "--dir", INSIDE, "--ro-bind", str(LIBRARY), f"{INSIDE}/course_lib"]
    for path in (folder,) if writable is None else writable:
        arguments += [*_parents(path, made), "--bind", str(path), str(path)]
    limited += ["--nproc=128", "--nofile=512"]
    if os.geteuid() == 0:  # the number of processes is not limited for root: another user, without a way back
        user = str(61000 + secrets.randbelow(4000))
        arguments += [a for name in ("SETUID", "SETGID", "SETPCAP") for a in ("--cap-add", f"CAP_{name}")]
        drop = [shutil.which("setpriv") or "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        drop += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    else:
        drop = []
        arguments += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    return ["bwrap", *arguments, "--chdir", "/tmp", "--", *drop, prlimit or "prlimit", *limited, "--", *program]


def _parents(path: Path, made: set[Path]) -> list[str]:
    """Folders above a mount, open to the kernel's user; some may be closed outside, as root's home is."""
    arguments: list[str] = []
    for parent in reversed(path.parents):
        if (
            parent not in made
            and parent not in (Path("/"), Path("/tmp"), Path("/usr"))
            and Path("/usr") not in parent.parents
        ):
            made.add(parent)
            arguments += ["--perms", "0755", "--dir", str(parent)]
    return arguments
