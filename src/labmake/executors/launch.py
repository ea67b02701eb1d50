"""What a step's process is started with: its command, its variables, and the files that lie beside its folder.

A worker's steps and those that a person runs by hand (`labmake shell`, `labmake debug`) get the same from here.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Container, Mapping, Sequence
from typing import Any

STEP = "step.json"
"""The file that LABMAKE_STEP names, in the folder that holds the step folder."""

TABLE = "batch.tsv"
"""The file in the folder for temporary ones that the `{batch}` of a shell command names."""

DONE = "done"
"""The file there that LABMAKE_DONE names."""

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "JULIA_NUM_THREADS",
    "LABMAKE_CPUS",
)
"""Variables by which libraries are told how many threads a step has booked."""


def launch(
    job: Mapping[str, Any], base: str, scratch: str, environment: Mapping[str, str], loaded: str = ""
) -> tuple[list[str], dict[str, str]]:
    """The command and the variables of a job's process; writes its step.json to `base` and its lists to `scratch`.

    `environment` is what all steps get; `job` has its booked `cpus` (a number) and `gpus` (their indices). Into the
    file `loaded` a Python step writes the modules that it imported, if its environment is not the whole.
    """
    env = {
        **environment,
        "TMPDIR": scratch,
        "GIT_CEILING_DIRECTORIES": base,
        **dict.fromkeys(THREADS, str(job["cpus"])),
        "CUDA_VISIBLE_DEVICES": ",".join(job["gpus"]),
        **job["env"],
    }
    if job["checkpoint"]:
        env["LABMAKE_CHECKPOINT"] = job["checkpoint"]
    if job["step"] is not None:
        step = os.path.join(base, STEP)
        told = {"loaded": loaded} if loaded and job["static"] is not None else {}
        _rewrite(step, json.dumps({**job["step"], "scratch": scratch, **told}).encode())
        env["LABMAKE_STEP"] = step
    for name, paths in job["lists"].items():
        with open(os.path.join(scratch, f"{name}.list"), "w", encoding="utf-8") as file:
            file.writelines(f"{path}\n" for path in paths)
    if job["batch"] and job["batch"]["row"] is not None:
        env["LABMAKE_DONE"] = f"{scratch}/{DONE}"
        _write_table(scratch, job.get("rows") or [job["batch"]["row"]])
    return [word.replace("\0scratch", scratch) for word in job["command"]], env


def _rewrite(path: str, data: bytes) -> None:
    """Write a JSON file over what it held for the last step; spaces fill up what was longer.

    Truncating a file that was just written waited for ext4's journal, 0.9 ms a step where other steps write too.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        os.pwrite(descriptor, data.ljust(os.fstat(descriptor).st_size), 0)
    finally:
        os.close(descriptor)


def _write_table(scratch: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The file that `{batch}` names: a line with the columns' names, and one for each item. A list is a file."""
    with open(f"{scratch}/{TABLE}", "w", encoding="utf-8") as table:
        table.write("\t".join(rows[0]) + "\n")
        for number, row in enumerate(rows):
            cells = []
            for name, value in row.items():
                if not isinstance(value, str):
                    path = f"{scratch}/{number}.{name}.list"
                    with open(path, "w", encoding="utf-8") as file:
                        file.writelines(f"{one}\n" for one in value)
                    value = path
                cells.append(value)
            table.write("\t".join(cells) + "\n")


def missing_output(job: Mapping[str, Any], folder: str, code: Container[str]) -> dict[str, Any] | None:
    """What is wrong with the outputs in a step folder, if anything: not there, or a file where a folder should be.

    `code` are the places of its code files, which it has not written.
    """
    for name, place in job["outputs"].items():
        try:
            mode = os.lstat(os.path.join(folder, place.rstrip("/"))).st_mode
        except OSError:
            mode = 0
        if stat.S_ISDIR(mode) if place.endswith("/") else mode and not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            continue
        inputs = {place for place, *_ in job["inputs"]}
        found = [path for path in _files(folder) if path not in inputs and path not in code]
        there = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else ""
        return {"output": name, "place": place, "there": there, "wrote": found[:8]}
    return None


def _files(folder: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(base, name), folder) for base, _, names in os.walk(folder) for name in names
    )
