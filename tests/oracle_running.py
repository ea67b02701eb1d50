"""The oracle's hands: labmake in a forked child, waiting for what a killed one leaves, writing files."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from oracle_model import EDITED

from labmake.engine import wave

PATIENCE = 300.0
"""Seconds after which a process that should have ended will not."""


class Mismatch(Exception):
    """What labmake did is not what the model says."""


def put(path: Path, data: bytes, rng: random.Random | None) -> None:
    """Write a file unless it has this content: in place or as a new one; at equal size at times with its old mtime."""
    old = path.read_bytes() if path.exists() else None
    if old == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    same_time = rng is not None and old is not None and len(old) == len(data) and not data.startswith(EDITED)
    status = path.stat() if old is not None else None
    if rng is not None and rng.random() < 0.5:
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(data)
        beside.replace(path)
    else:
        path.write_bytes(data)
    if same_time and status is not None:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def start(
    words: Sequence[str], folder: Path, printed: Path, waves: bool, first: Callable[[], None] | None = None
) -> tuple[int, Path]:
    """Start a labmake command in a forked child, which has all of labmake loaded: its process id, what it prints.

    With `waves` it takes the ways for a small change of a large build, however small the build is. `first` is called
    in the child before labmake begins.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    printed.write_bytes(b"")
    # An interrupt in the first moment of the child would unwind it into the oracle that it is a copy of.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid, printed
    code, inside = 99, False
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.setsid()
        os.chdir(folder)
        output = os.open(printed, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        if waves:
            wave.LARGE = 0
        os.environ["PYTHONHASHSEED"] = "0"
        sys.argv = ["labmake", *words]
        from labmake.cli import entry

        if first is not None:
            first()
        try:
            inside = True
            entry.main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 98
        inside = False
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:  # before labmake had begun, or when it was done
        code = 99 if inside else 130 if code == 99 else code
        if inside:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_of(pid: int) -> int | None:
    """Wait for the end of a child and return its status; one that does not end is killed, and None returned."""
    end = time.monotonic() + PATIENCE
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


def wait_for_the_end(root: Path) -> None:
    """Wait until no worker and no step of a killed build is left. Raises Mismatch if some do not end."""
    end = time.monotonic() + PATIENCE
    while left := [process for process in psutil.process_iter() if _belongs(process, str(root))]:
        if time.monotonic() > end:
            raise Mismatch(f"processes are left {PATIENCE:.0f} s after kill -9: {left}")
        time.sleep(0.01)


def _belongs(process: psutil.Process, root: str) -> bool:
    try:
        words = [process.cwd(), *process.cmdline()]
    except psutil.Error:
        return False
    return process.pid != os.getpid() and any(word.startswith(root + os.sep) for word in words)


def differences(there: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    """The files in which two trees differ."""
    lines = []
    for name in sorted({*there, *wanted}):
        if there.get(name) != wanted.get(name):
            lines.append(f"  {name}: there {there.get(name)!r}, expected {wanted.get(name)!r}")
    return "\n".join(lines)
