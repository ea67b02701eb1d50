"""A disk that fails when it is told to: system calls of a labmake command below a folder, counted and refused.

Linux alone can do this: a filter (seccomp) has the kernel ask this process about each call that touches a disk, in
every process of the command, SQLite's calls too. The answer is "go on" or an errno. Steps' own calls go on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oracle_running import start

PATIENCE = 240
"""Looks, a second each, without any call in between, after which a command that has not ended hangs. Looks and not
time: a machine that was stopped for a while, with all that runs on it, shows no hang."""

# Name → (number on x86_64, on aarch64 or -1, what its arguments are: "p" a path, "d" a folder's descriptor before a
# path, "f" an open file, "-" anything else).
_CALLS = {
    "open": (2, -1, "p-"),
    "openat": (257, 56, "dp-"),
    "read": (0, 63, "f"),
    "readv": (19, 65, "f"),
    "pread": (17, 67, "f"),
    "write": (1, 64, "f"),
    "writev": (20, 66, "f"),
    "pwrite": (18, 68, "f"),
    "stat": (4, -1, "p"),
    "lstat": (6, -1, "p"),
    "fstatat": (262, 79, "dp"),
    "statx": (332, 291, "dp"),
    "listdir": (217, 61, "f"),
    "rename": (82, -1, "p"),
    "renameat": (264, 38, "dp"),
    "renameat2": (316, 276, "dp"),
    "link": (86, -1, "-p"),
    "linkat": (265, 37, "--dp"),
    "symlink": (88, -1, "-p"),
    "symlinkat": (266, 36, "-dp"),
    "unlink": (87, -1, "p"),
    "unlinkat": (263, 35, "dp"),
    "mkdir": (83, -1, "p"),
    "mkdirat": (258, 34, "dp"),
    "rmdir": (84, -1, "p"),
    "truncate": (76, 45, "p"),
    "ftruncate": (77, 46, "f"),
    "fsync": (74, 82, "f"),
    "fdatasync": (75, 83, "f"),
    "utimensat": (280, 88, "dp"),
    "chmod": (90, -1, "p"),
    "fchmod": (91, 52, "f"),
    "fchmodat": (268, 53, "dp"),
    "flock": (73, 32, "f"),
    "copy_file_range": (326, 285, "--f"),
    "sendfile": (40, 71, "f"),
    "pipe": (293, 59, ""),
    "epoll": (291, 20, ""),
}
_AUDIT = {"x86_64": (0, 317), "aarch64": (1, 277)}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_GROWING = {"write", "writev", "pwrite", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"}
_GROWING |= {"mkdir", "mkdirat", "copy_file_range", "sendfile", "ftruncate"}
_CHANGING = {name for name, (_, _, shape) in _CALLS.items() if shape not in ("f", "")} - {"open", "openat"}
_CHANGING -= {"stat", "lstat", "fstatat", "statx"}
_LOOKING = {"stat", "lstat", "fstatat", "statx"}

LINKING = {"link", "linkat"}
LOCKING = {"flock"}
MODES = {"chmod", "fchmod", "fchmodat"}


@dataclass(frozen=True)
class Call:
    """A call that was counted: who made it ("coordinator", "worker"), what it does, the path below the folder."""

    role: str
    name: str
    path: str
    writing: bool = False

    def may_give(self, number: int) -> bool:
        """Whether a disk may answer this call with this errno."""
        opening = self.name in ("open", "openat")
        if number in (errno.ENOSPC, errno.EDQUOT):
            return self.name in _GROWING or (opening and self.writing)
        if number == errno.EROFS:
            return self.name in _CHANGING or (opening and self.writing)
        if number in (errno.EMFILE, errno.ENFILE):
            return opening or self.name in ("pipe", "epoll")
        if number == errno.EIO:
            return bool(self.path) and self.name not in ("flock", "pipe", "epoll")
        return True

    def __str__(self) -> str:
        return f"{self.role}: {self.name} {self.path}"


Refuse = Callable[[Call, int], int]
"""Asked with a call and its number among those of its role, from 1: the errno to give, 0 to go on."""


@dataclass
class Ended:
    """How a command ended: exit code (None: it had to be killed), what it printed, its calls in order."""

    code: int | None
    text: str
    calls: list[Call]
    refused: list[Call] = field(default_factory=list)


def run(words: Sequence[str], folder: Path, printed: Path, refuse: Refuse, below: Path | None = None) -> Ended:
    """Run a labmake command in `folder`; calls on anything `below` a folder (this one) are counted and judged."""
    here, there = socket.socketpair()
    pid, _ = start(words, folder, printed, waves=False, first=lambda: _begin(there))
    there.close()
    _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
    here.close()
    watcher = _Watcher(descriptors[0], pid, f"{below or folder}/", refuse)
    try:
        in_time = watcher.serve()
    finally:
        os.close(descriptors[0])
    if not in_time:
        for one in {pid, *watcher.roles}:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                pass
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status) if in_time else None
    return Ended(code, printed.read_text(errors="replace"), watcher.calls, watcher.refused)


class _Watcher:
    """Answers the kernel's questions until the last process of the command has ended."""

    def __init__(self, listener: int, coordinator: int, below: str, refuse: Refuse) -> None:
        self.listener, self.coordinator, self.below, self.refuse = listener, coordinator, below, refuse
        column = _AUDIT[platform.machine()][0]
        self.table = {numbers[column]: (name, numbers[2]) for name, numbers in _CALLS.items()}
        self.roles: dict[int, str] = {}
        self.counts = {"coordinator": 0, "worker": 0}
        self.calls: list[Call] = []
        self.refused: list[Call] = []

    def serve(self) -> bool:
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        idle = 0
        while idle < PATIENCE:
            ready = poll.poll(1000)
            idle = 0 if ready else idle + 1
            if not ready:
                continue
            if ready[0][1] & select.POLLHUP:
                return True
            self._answer()
        return False

    def _answer(self) -> None:
        question = bytearray(80)
        try:
            fcntl.ioctl(self.listener, 0xC0502100, question)
        except OSError:
            return  # whoever asked was killed
        name, tid, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", question)
        refusal = self._judged(tid, *self.table[number], arguments)
        answer = struct.pack("QqiI", name, 0, -refusal, 0 if refusal else 1)
        try:
            fcntl.ioctl(self.listener, 0xC0182101, bytearray(answer))
        except OSError:
            pass

    def _judged(self, tid: int, name: str, shape: str, arguments: list[int]) -> int:
        try:
            path = self._path(tid, shape, arguments) if shape else self.below
        except (OSError, ValueError):
            return 0
        if not path.startswith(self.below):
            return 0
        role = self._role(tid)
        if role not in self.counts:
            return 0
        flags = arguments[shape.index("p") + 1] if name in ("open", "openat") else 0
        call = Call(role, name, path[len(self.below) :], bool(flags & _WRITING))
        self.calls.append(call)
        self.counts[role] += 1
        refusal = self.refuse(call, self.counts[role])
        if refusal:
            self.refused.append(call)
        return refusal

    def _path(self, tid: int, shape: str, arguments: list[int]) -> str:
        if "f" in shape:
            return os.readlink(f"/proc/{tid}/fd/{arguments[shape.index('f')] & 0xFFFFFFFF}")
        with open(f"/proc/{tid}/mem", "rb", 0) as memory:
            memory.seek(arguments[shape.index("p")])
            path = os.fsdecode(memory.read(4096).partition(b"\0")[0])
        if path.startswith("/"):
            return path
        folder = arguments[shape.index("d")] & 0xFFFFFFFF if "d" in shape else 0xFFFFFF9C
        if not path and folder != 0xFFFFFF9C:
            return os.readlink(f"/proc/{tid}/fd/{folder}")  # fstat
        base = f"/proc/{tid}/cwd" if folder == 0xFFFFFF9C else f"/proc/{tid}/fd/{folder}"
        return os.path.normpath(os.path.join(os.readlink(base), path))

    def _role(self, tid: int) -> str:
        if tid not in self.roles:
            self.roles[tid] = self._found_role(tid)
        return self.roles[tid]

    def _found_role(self, tid: int) -> str:
        try:
            environment = Path(f"/proc/{tid}/environ").read_bytes()
            status = Path(f"/proc/{tid}/status").read_text()
            program = os.path.basename(os.readlink(f"/proc/{tid}/exe"))
        except OSError:
            return "gone"
        if "python" not in program or b"LABMAKE_IN_STEP=1" in environment:
            return "step"
        return "coordinator" if f"\nTgid:\t{self.coordinator}\n" in status else "worker"


def _begin(to: socket.socket) -> None:
    """In the child: print to where it shall go, whatever a test captures, and have the kernel ask."""
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    _install(to)


def _install(to: socket.socket) -> None:
    """In the child: from here on the kernel asks; the listener's descriptor is sent to the parent."""
    column, seccomp = _AUDIT[platform.machine()]
    numbers = [one[column] for one in _CALLS.values() if one[column] >= 0]
    load, equal, give = 0x20, 0x15, 0x06
    program = struct.pack("HBBI", load, 0, 0, 0)
    for index, number in enumerate(numbers):
        program += struct.pack("HBBI", equal, len(numbers) - index, 0, number)
    program += struct.pack("HBBI", give, 0, 0, 0x7FFF0000) + struct.pack("HBBI", give, 0, 0, 0x7FC00000)
    code = ctypes.create_string_buffer(program)
    wanted = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(38, 1, 0, 0, 0)  # no new privileges: else only root may install a filter
    listener = library.syscall(seccomp, 1, 8, ctypes.c_void_p(ctypes.addressof(wanted)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "the kernel does not let calls be watched")
    # `sendmsg` is not watched, so this goes on; `write` would wait for a parent that does not listen yet.
    socket.send_fds(to, [b"x"], [listener])
    os.close(listener)
    to.close()


def never(call: Call, number: int) -> int:
    """A sound disk."""
    return 0


def at(role: str, wanted: int, number: int, from_there: bool) -> Refuse:
    """The disk that gives an errno at call `wanted` of a role; `from_there` on at every call that may get it."""
    hit = False

    def refuse(call: Call, count: int) -> int:
        nonlocal hit
        if call.role == role and count == wanted and call.may_give(number):
            hit = True
            return number
        return number if hit and from_there and call.may_give(number) else 0

    return refuse


def always(names: set[str], number: int) -> Refuse:
    """A disk that never does some calls."""
    return lambda call, _: number if call.name in names else 0
