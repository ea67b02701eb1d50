"""The seams to the world, each a small protocol with its real implementation: the clock and the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

GRANULARITY = 20_000_000
"""Nanoseconds by which a time stamp must lie back to be trusted: the kernel stamps files from a clock that ticks every
1 to 10 ms, so two writes within one tick share their mtime."""


class Clock(Protocol):
    """Time as a person reads it and as the file system stamps it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def file_system_now(self, folder: Path) -> int:
        """The file system's own clock, in nanoseconds: what a file written now would get as mtime."""
        ...


class RealClock:
    """The machine's clock; the file system's is read by touching a file, since it may be another machine's."""

    def now(self) -> float:
        return time.time()

    def file_system_now(self, folder: Path) -> int:
        probe = folder / f".clock-{os.getpid()}"
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, b"0")
            return os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)
            os.unlink(probe)
