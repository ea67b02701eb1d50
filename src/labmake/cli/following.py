"""`labmake logs -f`: what a running step prints, while it prints it, from the file that its worker writes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from labmake.engine.services import Services
from labmake.errors import StoreError
from labmake.executors.running import Running, jobs_of, running_steps

POLL = 0.1
"""Seconds between two looks at a log."""


def running_step(services: Services, node: str) -> Running | None:
    """The running step of a node; of the same name in several worktrees, the one of this."""
    target = services.absolute(node)
    found = [one for one in running_steps(services.project.state / "steps") if one.job["id"] == node]
    mine = [one for one in found if any(path == target for path, _ in one.job["targets"].values())]
    return next(iter(mine or found), None)


def follow_log(services: Services, step: Running, out: IO[bytes]) -> None:
    """Print a step's log until it ends, to the last byte: its end may already be overwritten by the next step's.

    Of a step with secrets nothing is printed before they are taken out of its log.
    """
    told = hashlib.sha256()
    count = 0
    while True:
        runs = step.job in jobs_of(step.folder / "job")
        for data in [] if step.job["secret"] or not runs else _from(step.folder / "log", count):
            if step.job not in jobs_of(step.folder / "job"):
                break
            out.write(data)
            out.flush()
            told.update(data)
            count += len(data)
        if not runs:
            break
        time.sleep(POLL)
    whole = _final_log(services, step)
    if whole is not None and hashlib.sha256(whole[:count]).digest() == told.digest():
        out.write(whole[count:])
        out.flush()


def _from(file: Path, offset: int) -> Iterator[bytes]:
    """What a file holds from an offset on, piece by piece."""
    try:
        with file.open("rb") as log:
            log.seek(offset)
            while data := log.read(1 << 16):
                yield data
    except OSError:
        return


def _final_log(services: Services, step: Running) -> bytes | None:
    """The whole log of a step that has ended, as it is kept; None if that is not known."""
    services.blobs.refresh()
    trace = services.blobs.trace(step.job["action"])
    try:
        if trace is not None:
            return services.blobs.read(trace.log)
        return Path(os.path.join(step.job["failed"], "log")).read_bytes()
    except (OSError, StoreError):
        return None
