"""Damage in labmake's own folder: whatever is cut, flipped, emptied or gone, the next build is right."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from space import Space

SCRIPT = """
source("data/raw.csv", "./raw.csv")
rule("data/folds.json", raw="data/raw.csv", run=sh("echo folds >> NOTES; sed 's/.*/[&]/' {raw} > {out}"))
rule("data/{fold}.txt", row="data/folds.json#{fold}", run=sh("echo fit >> NOTES; cat {row} > {out}"))
rule("data/all.txt", fits=each("data/{fold}.txt", fold="data/folds.json"), run=sh("cat {fits} > {out}"))
rule("data/large.bin", raw="data/raw.csv", run=sh("echo large >> NOTES; (head -c 99999 /dev/zero; cat {raw}) > {out}"))
rule("models/m/", raw="data/raw.csv", run=sh("echo m >> NOTES; cp {raw} {out}/w; head -c 20000 /dev/zero > {out}/z"))
"""

Harm = Callable[[bytearray], "bytes | bytearray"]


def flipped(data: bytearray) -> bytearray:
    rng = random.Random(1)
    for _ in range(max(1, len(data) // 2000)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


HARMS: dict[str, Harm] = {
    "cut in half": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "garbage": lambda data: random.Random(2).randbytes(len(data)),
    "garbage in the middle": lambda data: data[: len(data) // 3] + bytes(200) + data[len(data) // 3 + 200 :],
    "bits flipped": flipped,
    "garbage behind": lambda data: data + random.Random(3).randbytes(5000),
}

PARTS = {
    "the state file": "state/*.db",
    "its log": "state/*.db-wal",
    "the snapshot": "state/gear1/????????",
    "the wave": "state/gear1/*.wave",
    "segments": "store/segments/*.seg",
    "large results": "store/blobs/*/*",
    "where segments begin": "store/segments/first",
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A project that was built and answered once more by its snapshot."""
    space = Space(tmp_path_factory.mktemp("damage") / "project")
    (space.root / "scripts" / space.experiment).mkdir(parents=True)
    (space.root / ".git").mkdir()
    space.write("./raw.csv", "1, 2, 3\n")
    space.write("script.py", SCRIPT.replace("NOTES", str(space.notes)))
    for _ in range(2):
        space.build()
    kept = space.root.parent / "kept"
    shutil.copytree(space.root, kept, symlinks=True)
    return space


def begin(space: Space) -> Path:
    """The project as it was, at the same place; labmake's folder."""
    shutil.rmtree(space.root)
    shutil.copytree(space.root.parent / "kept", space.root, symlinks=True)
    state = space.root / ".git" / "labmake"
    for name in ("first", "wave"):
        extra = state / ("store/segments/first" if name == "first" else "state/gear1/00000000.wave")
        extra.parent.mkdir(exist_ok=True)
        if not extra.exists():
            extra.write_bytes(b"0")
    if not list(state.glob("state/*.db-wal")):
        (database,) = state.glob("state/*.db")
        Path(f"{database}-wal").write_bytes(b"")
    return state


@pytest.mark.xdist_group("damage")
@pytest.mark.parametrize("part", PARTS)
def test_whatever_is_damaged_the_next_build_is_right(pristine: Space, part: str) -> None:
    for what, harm in HARMS.items():
        state = begin(pristine)
        right = pristine.files()
        paths = list(state.glob(PARTS[part]))
        assert paths, part
        for path in paths:
            path.chmod(0o644)
            path.write_bytes(harm(bytearray(path.read_bytes())) if path.stat().st_size else b"garbage" * 100)
        if part in ("segments", "large results"):
            shutil.rmtree(pristine.root / "generated")  # all has to come from the store, or be made again
        done = pristine.build()
        assert pristine.files() == right, (what, done.text)
        pristine.write("./raw.csv", "1, 2, 4\n")
        pristine.path("hashes.txt").unlink()
        pristine.build()
        assert pristine.read("data/all.txt") == "1\n2\n4\n" and not pristine.exists("data/3.txt"), what
        pristine.build()
        assert pristine.ran == pristine.restored == [], what


@pytest.mark.xdist_group("damage")
def test_whatever_is_gone_the_next_build_is_right(pristine: Space) -> None:
    for gone in ("state", "store", "store/segments", "store/blobs", "store/tmp", "leases", "steps"):
        state = begin(pristine)
        right = pristine.files()
        shutil.rmtree(state / gone)
        shutil.rmtree(pristine.root / "generated")
        pristine.build()
        assert pristine.files() == right, gone
        if gone in ("state", "store/tmp", "leases", "steps"):
            assert pristine.ran == [], gone
        pristine.build()
        assert pristine.ran == pristine.restored == [], gone


@pytest.mark.xdist_group("damage")
def test_when_all_is_gone_no_file_is_taken_for_labmakes_own(pristine: Space) -> None:
    state = begin(pristine)
    right = pristine.files()
    shutil.rmtree(state)
    done = pristine.build(code=3)
    assert "data/raw.csv was edited" not in done  # it holds what its source does
    assert "data/folds.json was edited" in done and pristine.files() == right
    pristine.build("--discard-edits")
    assert pristine.files() == right


@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize("size", [20, 40_000])
def test_a_damaged_input_of_a_step_that_has_to_run_is_taken_from_its_place_or_made_again(
    space: Space, placed: bool, size: int
) -> None:
    script = f"""
        rule("a.txt", run=sh("echo >> {space.notes}; printf '%{size}s' precious > {{out}}"))
        rule("b.txt", a="a.txt", run=sh("(cat {{a}}; echo; echo ONE) > {{out}}"))
        """
    space.write("script.py", script)
    space.build()
    store = space.root / ".git/labmake/store"
    for path in [*store.glob("segments/*.seg"), *(p for p in store.glob("blobs/*/*") if p.is_file())]:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b" precious", b" damaged!"))
    if not placed:
        space.path("a.txt").unlink()
    space.write("script.py", script.replace("ONE", "TWO"))
    space.build()
    assert space.read("b.txt").split() == ["precious", "TWO"]
    assert space.ran == (["b.txt"] if placed else ["a.txt", "b.txt"])
    space.build()
    assert space.ran == []
