"""Which steps run on this machine now, and for which build: read from the files in which workers say so."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labmake.frozen import frozen


@frozen
class Running:
    """A step that runs now: its worker's folder, and what the worker says of it (see executors.worker)."""

    folder: Path
    job: dict[str, Any]

    @property
    def process(self) -> int:
        """The number of the build's process, 0 if it is not known."""
        number = self.folder.parent.name.rpartition("-")[2]
        return int(number) if number.isdigit() else 0

    @property
    def project(self) -> str:
        """The worktree that it makes its target for."""
        node = self.job["id"].rstrip("/")
        targets = [path for path, _ in self.job["targets"].values()]
        return next((path.removesuffix(f"/{node}") for path in targets if path.endswith(f"/{node}")), "")


def running_steps(steps: Path) -> Iterator[Running]:
    """The steps that run now, by the folder for step folders. What a killed build of this host left is none."""
    for file in sorted(steps.glob("*/*/job")):
        job = job_of(file)
        if job is not None and not _is_dead(file.parent.parent.name):
            yield Running(file.parent, job)


def _is_dead(name: str) -> bool:
    """Whether `<host>-<process>` names a process of this host that is no more."""
    host, _, number = name.rpartition("-")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def job_of(file: Path) -> dict[str, Any] | None:
    """What a worker runs; None if nothing, or if it is just saying so."""
    try:
        job: dict[str, Any] = json.loads(file.read_bytes())
        return job
    except (OSError, ValueError):
        return None


def is_stopped(process: int) -> bool:
    """Whether a process was stopped, as by Ctrl-Z: it neither ends nor goes on by itself."""
    import psutil

    try:
        return psutil.Process(process).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
