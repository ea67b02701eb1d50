"""What a process reads, lists, writes and connects to, as strace sees it: how it is called, and its log read back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

CALLS = "?open,openat,?openat2,?creat,?getdents,getdents64,connect,execve,?rename,?renameat,renameat2"
"""The system calls that are looked at; with a question mark those that some machines do not have."""

WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")
"""Flags of an open that may write."""


@dataclass(frozen=True)
class Seen:
    """Absolute paths of files that a process `read` (or executed), of folders that it `listed`, of files that it
    `wrote`, and the addresses outside of this machine that it connected to."""

    read: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    wrote: frozenset[str] = frozenset()
    connected: frozenset[str] = frozenset()


@lru_cache(maxsize=1)
def strace() -> tuple[tuple[str, ...], str]:
    """The command that looks at another one (put before it, after `-o FILE`), and "" or why there is none."""
    program = shutil.which("strace")
    if program is None:
        return (), "strace is not installed"
    said = ""
    quiet: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
    for quick in (["--seccomp-bpf"], []):  # with it only these calls are stopped at; kernels and sandboxes may refuse
        words = [program, "-f", *quick, "-qq", "-y", "-s", "0", "-e", "signal=none", "-e", f"trace={CALLS}"]
        try:
            tried = subprocess.run([*words, "-o", os.devnull, "true"], **quiet)
        except OSError as error:
            return (), f"strace cannot be started: {error.strerror}"
        if tried.returncode == 0 and not tried.stderr.strip():
            return tuple(words), ""
        said = tried.stderr.strip().splitlines()[-1] if tried.stderr.strip() else f"exit code {tried.returncode}"
    return (), f"strace may not look at processes here ({said})"


_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += +(-?\d+)(?:<((?:[^<>])*)>)?")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_HERE = re.compile(r"AT_FDCWD<([^<>]*)>")
_HOLDER = re.compile(r"(?:AT_FDCWD|\d+)<([^<>]*)>")
_PAUSED = re.compile(r"(?:(\d+) +)?(.*) <unfinished \.\.\.>")
_GOES_ON = re.compile(r"(?:(\d+) +)?<\.\.\. \w+ resumed>(.*)")
_ESCAPE = re.compile(r"\\([0-7]{1,3}|.)")
_INET = re.compile(r"sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\"")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f"}


@dataclass
class _Log:
    """What was read of a log so far."""

    folder: str = "/"
    """The working directory that a call told last."""
    read: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    wrote: set[str] = field(default_factory=set)
    connected: set[str] = field(default_factory=set)

    def add(self, call: str, arguments: str, status: int, result: str | None) -> None:
        if call == "connect":
            self._connect(arguments)
        elif status < 0:
            return
        elif call.startswith(("open", "creat")) and result is not None:
            here = _HERE.match(arguments)
            if here:
                self.folder = _plain(here[1])
            path = _plain(result)
            if call == "creat" or any(flag in arguments for flag in WRITING):
                self.wrote.add(path)
            elif "O_DIRECTORY" not in arguments and path not in self.wrote:
                self.read.add(path)
        elif call.startswith("getdents"):
            found = _HOLDER.match(arguments)
            if found:
                self.listed.add(_plain(found[1]))
        elif call == "execve":
            self._path(self.read, arguments, 0)
        elif call.startswith("rename"):
            self._path(self.wrote, arguments, 1)

    def _path(self, into: set[str], arguments: str, number: int) -> None:
        """Add the path in the argument of this number, taken from the folder that is told before it, if one is."""
        names = _STRING.findall(arguments)
        if len(names) > number:
            holders = _HOLDER.findall(arguments)
            base = _plain(holders[number]) if len(holders) > number else self.folder
            path = os.path.normpath(os.path.join(base, _plain(names[number])))
            if into is not self.read or path not in self.wrote:
                into.add(path)

    def _connect(self, arguments: str) -> None:
        found = _INET.search(arguments)
        if found and not (found[2].startswith("127.") or found[2] in ("::1", "0.0.0.0", "::")):
            address = f"[{found[2]}]" if ":" in found[2] else found[2]
            self.connected.add(f"{address}:{found[1]}")


def seen(lines: Iterable[str]) -> Seen:
    """What a log of strace tells.

    A file that it wrote first and read then is written only. Lines that are no calls are passed over.
    """
    log = _Log()
    paused: dict[str | None, str] = {}
    for line in lines:
        stopped = _PAUSED.match(line)
        if stopped:
            paused[stopped[1]] = stopped[2]
            continue
        resumed = _GOES_ON.match(line)
        if resumed:
            line = paused.pop(resumed[1], "") + resumed[2]
        found = _LINE.match(line)
        if found:
            log.add(found[1], found[2], int(found[3]), found[4])
    return Seen(frozenset(log.read), frozenset(log.listed), frozenset(log.wrote), frozenset(log.connected))


def _plain(text: str) -> str:
    """A path as it is: strace writes bytes that are no plain ASCII as octal numbers."""
    if "\\" not in text:
        return text
    data = bytearray()
    end = 0
    for found in _ESCAPE.finditer(text):
        data += text[end : found.start()].encode()
        end = found.end()
        code = found[1]
        data += bytes([int(code, 8)]) if code[0].isdigit() else _LETTERS.get(code, code).encode()
    data += text[end:].encode()
    return os.fsdecode(bytes(data)).removesuffix(" (deleted)")


def under_strace(words: Sequence[str], command: Sequence[str], log: str) -> list[str]:
    """A command that strace looks at, with its log in a file."""
    return [*words, "-o", log, "--", *command]
