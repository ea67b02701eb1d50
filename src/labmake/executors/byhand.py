"""A step by hand: the step folder, command and variables that a worker would make, laid for a person to work in.

Nothing that happens there is taken for a result. What a person could spoil is a copy of its own: a large source, which
a worker links and compares after the run, and as root, whom no mode stops, a large blob.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labmake.executors.launch import launch
from labmake.executors.resources import Request, gpu_indices
from labmake.executors.stepfolder import StepFolders
from labmake.frozen import frozen
from labmake.model import Digest
from labmake.store.blobs import Blobs
from labmake.store.copying import copy, create
from labmake.store.digest import FileChanged, plain
from labmake.store.place import input_mode

TERMINAL = "TERM COLORTERM TERMINFO TERMINFO_DIRS NO_COLOR EDITOR VISUAL PAGER LESS".split()
"""The variables of a person's terminal that a step by hand has besides its own; a worker's step has none of them."""


@frozen
class ByHand:
    """A step laid for a person: `base` holds its `folder`, step.json and scratch folder; `command` and `environment`
    are what its process is started with, `code` the places of its code files."""

    base: Path
    folder: str
    command: list[str]
    environment: dict[str, str]
    code: frozenset[str]


def lay(base: Path, blobs: Blobs, job: Mapping[str, Any], environment: Mapping[str, str]) -> ByHand:
    """Lay a job's step in `base`, which must not be there. `environment` is what all steps get; see launch for `job`.

    Raises FileChanged if a source was written since it was hashed, OSError if the disk does not take it.
    """
    scratch = base / "scratch"
    os.makedirs(scratch)
    try:
        folders = StepFolders(base, blobs)
        box = folders.open(job["code"], job["inputs"], job["outputs"].values())
        folder = str(base / "folder")
        folders.keep(box, folder)
        for place, digest, _, origin in job["inputs"]:
            if digest[:1] not in ("", "@") and (origin or os.geteuid() == 0):
                _own(os.path.join(folder, place), digest)
        if job["checkpoint"]:
            job = {**job, "checkpoint": _copied(job["checkpoint"], base / "checkpoint")}
        command, variables = launch(job, str(base), str(scratch), environment)
    except BaseException:
        shutil.rmtree(base, ignore_errors=True)
        raise
    variables.update({name: os.environ[name] for name in TERMINAL if name in os.environ})
    return ByHand(base, folder, command, variables, frozenset(box.code))


def booked(request: Request, cpus: int) -> dict[str, Any]:
    """What a step by hand has of the machine: what it asks for, as far as that is there. It waits for nobody."""
    gpus = gpu_indices()[: request.gpus] if request.gpus else []
    return {"cpus": min(request.cpus, cpus), "gpus": gpus}


def _copied(checkpoint: str, to: Path) -> str:
    """A copy of what an attempt left in its checkpoint, which the next attempt goes on from, not a person's."""
    if os.path.isdir(checkpoint):
        shutil.copytree(checkpoint, to, symlinks=True)
    else:
        os.mkdir(to)
    return str(to)


def _own(path: str, digest: Digest) -> None:
    """Make a file that is one name of several a file of its own, with the same mode. Raises FileChanged."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if found.st_nlink == 1 or not stat.S_ISREG(found.st_mode):
        return
    beside = f"{path}.own"
    descriptor = create(beside, input_mode(digest))
    try:
        if copy(path, descriptor) != plain(digest):
            raise FileChanged(path)
    finally:
        os.close(descriptor)
    os.rename(beside, path)
