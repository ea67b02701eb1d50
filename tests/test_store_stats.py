"""The stat cache: hashes what may have changed, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from labmake.model import digest_of
from labmake.seams import GRANULARITY, RealClock
from labmake.store import stats as module
from labmake.store.state import State
from labmake.store.stats import StatCache


class Hand:
    """A file system clock set by hand."""

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds
        self.readings = 0

    def now(self) -> float:
        return self.nanoseconds / 1e9

    def file_system_now(self, folder: Path) -> int:
        self.readings += 1
        return self.nanoseconds


class Space:
    """A project with a file raw.csv written at time 0, and the list of what was hashed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.state = State.open(root / "state.db")
        self.hashed: list[str] = []
        real = module.hash_file

        def hash_file(path: str) -> object:
            self.hashed.append(os.path.relpath(path, root))
            return real(path)

        monkeypatch.setattr(module, "hash_file", hash_file)

    def write(self, text: str, when: int, name: str = "raw.csv") -> None:
        """Writes in place, so that the inode stays."""
        with (self.root / name).open("r+" if (self.root / name).exists() else "w") as file:
            file.truncate()
            file.write(text)
        os.utime(self.root / name, ns=(when, when))

    def cache(self, clock: int) -> StatCache:
        return StatCache(self.state, self.root, Hand(clock))


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Space:
    return Space(tmp_path, monkeypatch)


NOW = time.time_ns() + 3600 * 10**9
"""Later than any ctime, which no test can set."""
OLD = NOW - GRANULARITY - 1


def test_an_old_file_is_hashed_once_also_across_processes(space: Space) -> None:
    space.write("data", OLD)
    cache = space.cache(NOW)
    assert [cache.digest("raw.csv") for _ in range(3)] == [digest_of(b"data")] * 3
    space.state.close()
    space.state = State.open(space.root / "state.db")
    assert space.cache(NOW).digest("raw.csv") == digest_of(b"data")
    assert space.hashed == ["raw.csv"]


@pytest.mark.parametrize("age", [-1, 0, 1, GRANULARITY])
def test_a_file_written_a_moment_ago_is_hashed_again(space: Space, age: int) -> None:
    space.write("data", NOW - age)
    cache = space.cache(NOW)
    for _ in range(3):
        cache.digest("raw.csv")
    assert len(space.hashed) == 3 and space.state.stats() == {}


def test_a_racy_edit_of_the_same_size_and_time_is_noticed(space: Space) -> None:
    space.write("one!", NOW)
    cache = space.cache(NOW)
    assert cache.digest("raw.csv") == digest_of(b"one!")
    space.write("two!", NOW)
    assert cache.digest("raw.csv") == digest_of(b"two!")


def test_on_the_real_clock_edits_right_after_hashing_are_noticed(tmp_path: Path) -> None:
    cache = StatCache(State.open(tmp_path / "state.db"), tmp_path, RealClock())
    for number in range(300):
        text = f"{number:04d}"
        with (tmp_path / "raw.csv").open("r+" if number else "w") as file:
            file.write(text)
        assert cache.digest("raw.csv") == digest_of(text.encode())


def test_on_the_real_clock_an_old_file_is_recorded(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.db")
    (tmp_path / "raw.csv").write_text("data")
    os.utime(tmp_path / "raw.csv", (1e9, 1e9))
    time.sleep(2 * GRANULARITY / 1e9)
    StatCache(state, tmp_path, RealClock()).digest("raw.csv")
    assert state.stats()["raw.csv"][4] == digest_of(b"data")
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith(".clock")) == []


def test_an_edit_whose_mtime_is_set_back_is_noticed_by_its_ctime(tmp_path: Path) -> None:
    cache = StatCache(State.open(tmp_path / "state.db"), tmp_path, RealClock())
    raw = tmp_path / "raw.csv"
    raw.write_text("one!")
    os.utime(raw, (1e9, 1e9))
    time.sleep(2 * GRANULARITY / 1e9)
    assert cache.digest("raw.csv") == digest_of(b"one!")
    with raw.open("r+") as file:
        file.write("two!")
    os.utime(raw, (1e9, 1e9))
    assert cache.digest("raw.csv") == digest_of(b"two!")


def test_a_hard_link_to_a_large_file_does_not_make_it_be_read_again(space: Space) -> None:
    space.write("x" * (module.LARGE + 1), OLD)
    cache = space.cache(NOW)
    cache.digest("raw.csv")
    os.link(space.root / "raw.csv", space.root / "link")
    cache.digest("raw.csv")
    assert space.hashed == ["raw.csv"]


def test_every_part_of_the_stat_counts(space: Space) -> None:
    cache = space.cache(NOW)
    space.write("data", OLD)
    cache.digest("raw.csv")
    space.write("longer", OLD)
    assert cache.digest("raw.csv") == digest_of(b"longer")
    space.write("change", OLD - 1)
    assert cache.digest("raw.csv") == digest_of(b"change")
    space.write("inode!", OLD - 1, "new")
    (space.root / "new").rename(space.root / "raw.csv")
    assert cache.digest("raw.csv") == digest_of(b"inode!")


def test_a_file_that_was_touched_a_moment_ago_is_no_longer_trusted_by_its_old_record(space: Space) -> None:
    cache = space.cache(NOW)
    space.write("data", OLD)
    cache.digest("raw.csv")
    space.write("edit", NOW)
    assert cache.digest("raw.csv") == digest_of(b"edit")
    space.write("data", OLD)
    cache.digest("raw.csv")
    assert space.hashed == ["raw.csv"] * 3


def test_a_forgotten_file_is_hashed_again(space: Space) -> None:
    space.write("data", OLD)
    cache = space.cache(NOW)
    cache.digest("raw.csv")
    cache.forget("raw.csv")
    cache.digest("raw.csv")
    assert len(space.hashed) == 2


def test_forgetting_lasts_even_before_the_first_look_up(space: Space) -> None:
    space.write("data", OLD)
    space.cache(NOW).digest("raw.csv")
    fresh = space.cache(NOW)
    fresh.forget("raw.csv")
    fresh.digest("raw.csv")
    assert len(space.hashed) == 2


def test_the_clock_is_read_once_for_many_files_and_not_for_known_ones(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: 5.0)
    clock = Hand(NOW)
    cache = StatCache(space.state, space.root, clock)
    for number in range(10):
        space.write("data", OLD, f"f{number}")
        cache.digest(f"f{number}")
    assert clock.readings == 1
    monkeypatch.setattr(module.time, "monotonic", lambda: 6.0)
    cache.digest("f0")
    assert clock.readings == 1
    cache.forget("f0")
    cache.digest("f0")
    assert clock.readings == 2


def test_a_file_on_another_file_system_must_be_a_minute_old(space: Space) -> None:
    cache = space.cache(NOW)
    cache._device = -1
    for age, times in ((GRANULARITY + 1, 2), (61 * 10**9, 1)):
        space.write("data", NOW - age)
        space.hashed.clear()
        cache.digest("raw.csv")
        cache.digest("raw.csv")
        assert len(space.hashed) == times


def test_absolute_paths_work_and_odd_names_are_hashed_each_time(space: Space) -> None:
    space.write("data", OLD)
    cache = space.cache(NOW)
    absolute = str(space.root / "raw.csv")
    assert cache.digest(absolute) == cache.digest(absolute) == digest_of(b"data")
    assert len(space.hashed) == 1
    odd = os.fsdecode(b"caf\xe9")
    try:
        space.write("odd", OLD, odd)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert cache.digest(odd) == cache.digest(odd) == digest_of(b"odd")
    space.state.commit()


def test_what_is_absent_or_a_folder_is_said_by_the_operating_systems_errors(space: Space) -> None:
    cache = space.cache(NOW)
    with pytest.raises(FileNotFoundError):
        cache.digest("absent")
    with pytest.raises(IsADirectoryError):
        cache.digest(".")
    space.write("data", OLD)
    cache.digest("raw.csv")
    (space.root / "raw.csv").unlink()
    with pytest.raises(FileNotFoundError):
        cache.digest("raw.csv")
