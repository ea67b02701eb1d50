"""The benchmark: every tool is in its tables, ratios are numbers, and a tool that made something else gets no times."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = (
    "--steps 4 --slow-steps 2 --width 3 --slow-width 2 --python-steps 4 --slow-python-steps 2 "
    "--outputs 4 --megabytes 1 --runs 1"
).split()
PEERS = ("make", "ninja", "doit", "snakemake", "dvc", "redun")
OURS = ("labmake (wildcards)", "labmake (2 × N rules)")


def bench(folder: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the benchmark at the smallest size in a folder."""
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "run.py", *TINY, "--folder", folder, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **({"PATH": path} if path else {})},
        check=False,
    )


def tables(text: str) -> list[dict[str, dict[str, str]]]:
    """The tables of a text: each row's first cell → the other cells by title."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        titles, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        found.append({first: dict(zip(titles[1:], cells, strict=True)) for first, *cells in rows})
    return found


def fake(folder: Path, name: str, script: str) -> str:
    """A path on which a program of this name is a script."""
    program = folder / name
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_every_tool_is_in_the_table_and_ratios_are_numbers(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "chains")
    assert done.returncode == 0, done.stderr
    aims, all_tools, *_ = tables(done.stdout)
    assert set(all_tools) == {*PEERS, *OURS}
    assert float(all_tools["make"]["÷ make"]) == 1
    for name, row in all_tools.items():
        first, *others = row.values()
        if first.startswith("absent: "):
            assert name not in OURS and len(first) > len("absent: ")
        else:
            assert float(row["÷ make"]) > 0 and float(first) > 0, name
            assert all(re.fullmatch(r"< 10|[\d.]+", cell) for cell in others), (name, row)
    assert any(name.startswith("first build of 4 steps ÷ make") for name in aims)
    assert all("not measured" not in row.values() for name, row in aims.items() if "ninja" not in name)


def test_all_other_scenarios_that_need_no_example_have_their_numbers(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "fan-out", "python-steps", "restoring", "hashing")
    assert done.returncode == 0, done.stderr
    found = {name: row for one in tables(done.stdout) for name, row in one.items()}
    for name in (
        "labmake (folder, find)",
        "labmake (file, slices)",
        "one process",
        "sha256, one file",
        "labmake, two files",
    ):
        assert float(next(iter(found[name].values()))) > 0, name
    assert float(found["labmake (wildcards)"]["made ÷ restored"]) > 0
    assert not list(tmp_path.iterdir())


def test_a_tool_that_does_not_make_the_files_gets_no_times(tmp_path: Path) -> None:
    there = tmp_path / "bin"
    there.mkdir()
    done = bench(tmp_path, "--only", "chains", path=fake(there, "make", "echo GNU Make 4.3"))
    assert done.returncode != 0
    assert "make, cold: out/a/1.txt is missing; no times are told" in done.stderr
    assert "|" not in done.stdout


def test_a_tool_that_does_not_work_is_named_as_absent(tmp_path: Path) -> None:
    there = tmp_path / "bin"
    there.mkdir()
    done = bench(tmp_path, "--only", "chains", path=fake(there, "doit", "exit 1"))
    assert done.returncode == 0, done.stderr
    assert "| doit | absent: `doit --version` fails |" in done.stdout


def test_the_page_has_a_place_for_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import replaced

    page = (ROOT / "docs" / "design" / "performance.md").read_text()
    parts = ("chains", "fan-out", "python-steps", "restoring", "hashing", "start-up")
    filled = replaced(page, {name: f"figures of {name}" for name in parts})
    for name in parts:
        assert f"<!-- {name} -->\nfigures of {name}\n<!-- end of {name} -->" in filled
    assert replaced(filled, {}) == filled
