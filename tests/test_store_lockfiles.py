"""Lock files: one holder at a time, also when many take over a dead one's, and a slow one is not taken for dead."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from labmake.errors import Misuse
from labmake.store import filesystem, lockfiles
from labmake.store.filesystem import NETWORK, file_system, uses_lock_files
from labmake.store.lockfiles import BEAT, DEAD, is_held, machine, take


def held_elsewhere(path: Path, seconds_ago: float) -> None:
    """A lock of a process on another machine, whose last heartbeat was so long ago."""
    path.write_text("other-host/12345678/4026531836 1 17 0-1")
    stamp = time.time() - seconds_ago
    os.utime(path, (stamp, stamp))


def test_one_has_it_until_it_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = take(path)
    assert lock is not None and take(path) is None and is_held(path)
    lock.release()
    assert not is_held(path) and os.listdir(tmp_path) == []
    lock.release()
    again = take(path)
    assert again is not None
    lock.release()  # long gone: it does not end the next one's
    assert is_held(path)
    again.release()


def test_a_holder_that_was_killed_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = os.fork()
    if child == 0:
        os._exit(0 if take(str(path)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert path.exists() and not is_held(str(path))
    lock = take(str(path))
    assert lock is not None and is_held(str(path))
    lock.release()
    assert os.listdir(tmp_path) == []


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(f"{machine()} {os.getpid()} 1 0-1")  # our number, but begun at another time
    lock = take(str(path))
    assert lock is not None
    lock.release()


def test_on_another_machine_the_heartbeat_counts(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held_elsewhere(path, DEAD / 2)
    assert take(str(path)) is None and is_held(str(path))
    held_elsewhere(path, DEAD + 5)
    lock = take(str(path))
    assert lock is not None
    lock.release()
    assert os.listdir(tmp_path) == []


def test_who_has_just_begun_to_write_his_name_is_no_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    assert take(str(path)) is None


def test_a_living_holder_stamps_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockfiles, "BEAT", 0.05)
    assert BEAT * 10 < DEAD
    path = tmp_path / "lock"
    lock = take(str(path))
    assert lock is not None
    os.utime(path, (1, 1))
    while path.stat().st_mtime < 1e9:
        time.sleep(0.01)
    lock.release()


def test_a_forked_child_does_not_end_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = take(str(path))
    assert lock is not None
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists() and is_held(str(path))
    lock.release()


def _race(path: str, start: float, counted: str) -> None:
    """Take a lock again and again, and count under it: two at once would lose a count."""
    while time.time() < start:
        pass
    for _ in range(25):
        while (lock := take(path)) is None:
            time.sleep(0.001)
        number = int(Path(counted).read_text())
        Path(counted).write_text(str(number + 1))
        if number % 3 == 0:
            held_elsewhere(Path(path), DEAD + 5)  # it vanished with its machine; its release must do nothing
        lock.release()


def test_of_many_who_take_over_one_wins(tmp_path: Path) -> None:
    path, counted = tmp_path / "lock", tmp_path / "counted"
    held_elsewhere(path, DEAD + 5)
    counted.write_text("0")
    context = multiprocessing.get_context("fork")
    start = time.time() + 0.2
    processes = [context.Process(target=_race, args=(str(path), start, str(counted))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert counted.read_text() == "100"


def test_a_taker_that_was_killed_in_between_blocks_nobody(tmp_path: Path) -> None:
    path, taking = tmp_path / "lock", tmp_path / "lock.take"
    held_elsewhere(path, DEAD + 5)
    held_elsewhere(taking, DEAD + 5)
    assert take(str(path)) is None  # that removes the dead taker's
    lock = take(str(path))
    assert lock is not None
    lock.release()
    assert os.listdir(tmp_path) == []


# Which file systems are locked by files


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is mounted, as far as labmake sees."""
    seen = [("/", "ext4"), ("/home", "nfs4"), ("/home/local disk", "xfs"), ("/data", "fuse.sshfs")]
    monkeypatch.setattr(filesystem, "_mounts", lambda: seen)
    monkeypatch.delenv(filesystem.LOCKS, raising=False)
    uses_lock_files.cache_clear()
    return seen


def test_the_innermost_mount_tells_the_file_system(mounts: list[tuple[str, str]]) -> None:
    for path, kind in (("/etc", "ext4"), ("/home", "nfs4"), ("/home/a/b", "nfs4"), ("/homes", "ext4")):
        assert file_system(Path(path)) == kind
    assert file_system(Path("/home/local disk/x")) == "xfs"
    assert uses_lock_files(Path("/home/a")) and uses_lock_files(Path("/data/a"))
    assert not uses_lock_files(Path("/srv"))


def test_the_kernels_own_list_is_read() -> None:
    line = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 - nfs4 server:/export rw"
    assert filesystem._parsed(line) == ("/mnt two", "nfs4") and "nfs4" in NETWORK
    assert file_system(Path("/proc")) in ("proc", "")


def test_a_user_says_otherwise(mounts: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(filesystem.LOCKS, "flock")
    assert not uses_lock_files(Path("/home/b"))
    monkeypatch.setenv(filesystem.LOCKS, "files")
    assert uses_lock_files(Path("/srv/b"))
    monkeypatch.setenv(filesystem.LOCKS, "maybe")
    with pytest.raises(Misuse):
        uses_lock_files(Path("/srv/c"))
