"""Small Python steps with numpy: forked by labmake, or in batches, beside Snakemake's `script:` and one process."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

from measure import Phases
from tools import Project, build, check, lay

LABMAKE, BATCHES, SNAKEMAKE, LOOP = "labmake", "labmake (batch=500)", "snakemake (script:)", "one process"
VALUES = 1000
"""Numbers in each input: 8 kB, so that starting is what costs."""

STEP = """
import json
import numpy as np

def mean(source, out):
    with open(out, "w") as file:
        json.dump({"mean": float(np.load(source).mean())}, file)
"""


def _labmake(count: int, more: str = "") -> Mapping[str, str]:
    script = f"""import json
import numpy as np
from labmake import group, py, rule

def mean(x: np.ndarray, out):
    with open(out, "w") as file:
        json.dump({{"mean": float(x.mean())}}, file)

rule("out/{{k}}.json", x="/in/{{k}}.npy", run=py("script.py:mean"){more})
group("all", *[f"out/{{k}}.json" for k in range({count})])
"""
    return {"scripts/2026-01-02-Means/script.py": script, ".gitignore": "generated/\n"}


def _snakemake(count: int) -> Mapping[str, str]:
    script = STEP + "\nmean(snakemake.input[0], snakemake.output[0])\n"
    rules = f"""rule all:
    input: [f"out/{{k}}.json" for k in range({count})]
rule mean:
    input: "in/{{k}}.npy"
    output: "out/{{k}}.json"
    script: "mean.py"
"""
    return {"Snakefile": rules, "mean.py": script}


def _loop(count: int) -> Mapping[str, str]:
    calls = f'for k in range({count}):\n    mean(f"in/{{k}}.npy", f"out/{{k}}.json")\n'
    return {"loop.py": f'import os\n{STEP}\nos.makedirs("out", exist_ok=True)\n{calls}'}


def _batches(count: int) -> Mapping[str, str]:
    return _labmake(count, ", batch=500")


MADE = "generated/2026-01-02-Means/assets/out"

PROJECTS = (
    Project(LABMAKE, "labmake", _labmake, ("all",), MADE),
    Project(BATCHES, "labmake", _batches, ("all",), MADE),
    Project(SNAKEMAKE, "snakemake", _snakemake),
    Project(LOOP, "python", _loop),
)


def _array(first: int) -> bytes:
    """VALUES doubles that count from `first`, as numpy.save writes them."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({VALUES},), }}"
    header = header.ljust(117) + "\n"
    data = io.BytesIO()
    data.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    data.write(struct.pack(f"<{VALUES}d", *range(first, first + VALUES)))
    return data.getvalue()


def cycle(project: Project, base: Path, count: int, jobs: int) -> Phases:
    """Make all means, and again when nothing has changed; the second is what a tool takes before its first step."""
    folder = base / "pysteps"
    lay(project, folder, count, jobs, {})
    (folder / "in").mkdir()
    for k in range(count):
        (folder / "in" / f"{k}.npy").write_bytes(_array(k))
    expected = {f"{k}.json": f'{{"mean": {k + (VALUES - 1) / 2}}}' for k in range(count)}
    phases = {"cold": build(project, folder, jobs)}
    check(project, folder, expected, "the first build")
    if project.name != LOOP:
        phases["null"] = build(project, folder, jobs)
    return phases
