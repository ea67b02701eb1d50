"""Resources: what a step books while it runs, and the pool of this machine from which it is booked."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

from labmake.errors import LabmakeError, StepFailed
from labmake.frozen import frozen


@frozen
class Request:
    """What a step needs: `cpus` and `gpus` are numbers, `memory` bytes, `seconds` its time limit (0: none)."""

    cpus: int = 1
    memory: int = 0
    gpus: int = 0
    seconds: float = 0.0


@frozen
class Lease:
    """What a running step has booked; `gpus` are the indices it may use."""

    cpus: int
    memory: int
    gpus: tuple[str, ...]


@dataclass
class Pool:
    """What this machine has: `cpus` steps' worth, `memory` bytes, the indices of its GPUs."""

    cpus: int
    memory: int
    gpus: list[str]
    free_cpus: int = field(init=False)
    free_memory: int = field(init=False)

    def __post_init__(self) -> None:
        self.free_cpus, self.free_memory = self.cpus, self.memory
        self.free_gpus = list(self.gpus)

    def refusal(self, request: Request) -> LabmakeError | None:
        """Why a request can never be granted here. More cpus than there are is no reason: a step then gets all."""
        for name, asked, there in (("memory", request.memory, self.memory), ("gpus", request.gpus, len(self.gpus))):
            if asked > there:
                unit = 2**30 if name == "memory" else 1
                return StepFailed(
                    f"the step asks for more {name} than this machine has",
                    [
                        ("asks for", f"{asked / unit:g}{'G' if unit > 1 else ''}"),
                        ("has", f"{there / unit:.1f}G" if unit > 1 else there),
                    ],
                    [
                        f"lower {name}= of its rule, or build on a larger machine",
                        f"to try with less: labmake build --set TARGET {name}=…",
                    ],
                )
        return None

    def take(self, request: Request) -> Lease | None:
        """Book what a request asks for, or None while others have it."""
        cpus = min(request.cpus, self.cpus)
        if cpus > self.free_cpus or request.memory > self.free_memory or request.gpus > len(self.free_gpus):
            return None
        gpus = tuple(self.free_gpus[: request.gpus])
        del self.free_gpus[: request.gpus]
        self.free_cpus -= cpus
        self.free_memory -= request.memory
        return Lease(cpus, request.memory, gpus)

    def room(self, request: Request) -> int:
        """How often a request could be granted now, one after the other."""
        rooms = [self.free_cpus // max(min(request.cpus, self.cpus), 1)]
        rooms += [self.free_memory // request.memory] if request.memory else []
        rooms += [len(self.free_gpus) // request.gpus] if request.gpus else []
        return min(rooms)

    def give_back(self, lease: Lease) -> None:
        """End a booking."""
        self.free_cpus += lease.cpus
        self.free_memory += lease.memory
        self.free_gpus = sorted([*self.free_gpus, *lease.gpus], key=self.gpus.index)


def this_machine(jobs: int) -> Pool:
    """The pool of this machine, for `jobs` single-threaded steps at once."""
    return Pool(jobs, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), gpu_indices())


def gpu_indices() -> list[str]:
    """The GPUs that steps may use: CUDA_VISIBLE_DEVICES if it is set, else all that nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    import subprocess

    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, line in enumerate(x for x in listed.stdout.splitlines() if x.startswith("GPU "))]
