"""Disks as they are: really full, really read-only, another one below generated/."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from space import Space

SCRIPT = """
for i in range(6):
    rule(f"data/{i}.bin", x="./x.txt", run=sh("(head -c 700000 /dev/zero; echo; cat {x}; echo %d) > {out}" % i))
    rule(f"data/{i}.txt", x=f"data/{i}.bin", run=sh("tail -n 2 {x} > {out}"))
"""

ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount; a limit on file sizes is tried as well"
)


def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    yield from mounted(tmp_path / "disk", "size=3m")


def project(root: Path) -> Space:
    space = Space(root)
    (root / "scripts" / space.experiment).mkdir(parents=True)
    (root / ".git").mkdir()
    space.write("script.py", SCRIPT)
    space.write("./x.txt", "x\n")
    return space


def right(space: Space) -> bool:
    return all(space.read(f"data/{i}.txt") == f"x\n{i}\n" for i in range(6))


@ROOT
def test_on_a_full_disk_the_build_says_so_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    space = project(small_disk / "project")
    done = space.build("-j2", code=None)
    assert done.code in (1, 5) and "No space left on device" in done and "→" in done, done.text
    made = space.ran
    assert made and len(made) < 12
    for i in range(6):
        path = space.path(f"data/{i}.bin")
        assert not path.exists() or path.stat().st_size == 700005, "half a result"
    done = space.build("-j2", code=None)  # still full
    assert done.code in (1, 5) and not set(space.ran) & set(made), done.text
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    space.build("-j2")
    assert right(space) and not set(space.ran) & set(made)


@ROOT
def test_on_a_disk_that_was_made_read_only_the_build_says_so(small_disk: Path) -> None:
    space = project(small_disk / "project")
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    space.build("data/0.txt")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = space.build(code=5)
    assert "read-only" in done.text.lower() and "→" in done
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    space.build()
    assert right(space) and "data/0.bin" not in space.ran


@ROOT
def test_results_on_another_disk_are_copied_there(space: Space) -> None:
    space.write("script.py", SCRIPT)
    space.write("./x.txt", "x\n")
    for disk in mounted(space.root / "generated", "size=40m"):
        space.build("-j2")
        assert right(space) and not list(disk.rglob(".*labmake*"))
        space.path("data/1.bin").unlink()
        space.build()
        assert space.restored == ["data/1.bin"]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        space.write("./x.txt", "y\n")
        assert "→" in space.build(code=5)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        space.build()
        assert space.read("data/3.txt") == "y\n3\n" and "data/3.bin" not in space.ran


def test_a_file_may_grow_no_further_and_the_build_says_so(tmp_path: Path) -> None:
    space = project(tmp_path / "project")
    space.write("script.py", 'rule("a.bin", x="./x.txt", run=sh("cat {x} {x} {x} {x} > {out}"))')
    space.write("./x.txt", b"x" * 300_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        done = space.build(code=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.code in (1, 5) and "→" in done and not space.exists("a.bin")
    space.build()
    assert space.path("a.bin").stat().st_size == 1_200_000
