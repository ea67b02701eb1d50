"""Root and an ordinary user: what modes stop, what they do not, and whose store it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from space import Space
from users import UserSpace, user_space

NOT_THAT_ONE = 65533
"""A user who is not the one whose project it is."""

SCRIPT = """
rule("data/large.bin", x="./x.txt", run=sh("(head -c 1200000 /dev/zero; cat {x}) > {out}"))
rule("data/size.txt", large="data/large.bin", run=sh("wc -c < {large} > {out}"))
rule("models/m/", x="./x.txt", run=sh("cp {x} {out}/w; (head -c 1200000 /dev/zero; cat {x}) > {out}/large"))
"""


@pytest.fixture
def user() -> Iterator[UserSpace]:
    """A project of an ordinary user, not built yet."""
    with user_space() as space:
        space.write("script.py", SCRIPT)
        space.write("./x.txt", "x\n")
        space.own()
        yield space


def large_blob(space: Space) -> Path:
    return next(p for p in (space.root / ".git/labmake/store/blobs").rglob("*") if p.is_file())


def shares(path: Path, blob: Path) -> bool:
    return path.stat().st_ino == blob.stat().st_ino


def test_an_ordinary_user_builds_rebuilds_and_restores(user: UserSpace) -> None:
    user.build()
    assert user.ran == ["data/large.bin", "data/size.txt", "models/m/"] and user.read("data/size.txt") == "1200002\n"
    user.write("./x.txt", "xx\n")
    user.build()
    assert user.ran == ["data/large.bin", "data/size.txt", "models/m/"] and user.read("data/size.txt") == "1200003\n"
    user.write("./x.txt", "x\n")
    user.build()
    assert user.ran == [] and user.read("data/size.txt") == "1200002\n"
    assert user.path("data/large.bin").stat().st_uid == user.user


def test_a_large_result_shares_its_bytes_with_the_store_and_is_read_only(user: UserSpace) -> None:
    user.build()
    blob = large_blob(user)
    assert stat.S_IMODE(blob.stat().st_mode) == 0o444
    large = user.path("data/large.bin")
    if shares(large, blob):  # a hard link: where blocks are shared the file is a user's own
        assert not large.stat().st_mode & 0o222
    large.unlink()
    user.own()
    user.build()
    assert user.restored == ["data/large.bin"] and large.stat().st_size == 1200002


def test_root_whom_no_mode_stops_gets_a_copy(space: Space) -> None:
    space.write("script.py", SCRIPT)
    space.write("./x.txt", "x\n")
    space.build()
    large, blob = space.path("data/large.bin"), large_blob(space)
    assert os.geteuid() != 0 or not shares(large, blob)
    large.chmod(0o644)
    with large.open("r+b") as file:  # an edit in place
        file.write(b"mine")
    space.build(code=3)
    space.run("restore", "data/large.bin")
    assert large.read_bytes() == b"\0" * 1200000 + b"x\n"


def test_generated_files_that_may_not_be_written_are_a_disk_error_and_the_next_build_goes_on(user: UserSpace) -> None:
    folder = user.root / "generated"
    folder.mkdir()
    user.own()
    folder.chmod(0o555)
    done = user.build(code=5)
    assert "Permission denied" in done and "→" in done
    folder.chmod(0o755)
    user.build()
    assert user.read("data/size.txt") == "1200002\n"
    data = user.path("data/size.txt").parent
    data.chmod(0o555)
    user.write("./x.txt", "xx\n")
    done = user.build(code=5)
    assert "Permission denied" in done and "→" in done and user.read("data/size.txt") == "1200002\n"
    data.chmod(0o755)
    user.build()
    assert user.read("data/size.txt") == "1200003\n" and user.ran == [
        "data/size.txt"
    ]  # which had to wait; the large one was stored


def test_a_state_that_may_not_be_written_is_said_clearly(user: UserSpace) -> None:
    git = user.root / ".git"
    git.chmod(0o555)
    done = user.build(code=5)
    assert ".git/labmake" in done and "Permission denied" in done and "→" in done
    git.chmod(0o755)
    user.build()
    state = git / "labmake" / "state"
    state.chmod(0o555)
    for path in state.iterdir():
        path.chmod(0o444 if path.is_file() else 0o555)
    user.write("./x.txt", "xx\n")
    assert "→" in user.build(code=5)
    state.chmod(0o755)
    for path in state.iterdir():
        path.chmod(0o644 if path.is_file() else 0o755)
    user.build()
    assert user.read("data/size.txt") == "1200003\n"


def test_the_store_of_another_user_can_be_read_and_not_be_harmed(user: UserSpace) -> None:
    user.build()
    before = {path: path.read_bytes() for path in (user.root / ".git/labmake/store").rglob("*") if path.is_file()}
    user.path("data/size.txt").unlink()
    if os.geteuid() == 0:
        user.own(NOT_THAT_ONE)  # an ordinary user has no other one at hand: this part is root's to try
        done = user.build(code=None)
        assert done.code == 5 and "→" in done, done.text
    after = {path: path.read_bytes() for path in before}
    assert before == after
    user.own()
    user.build()
    assert user.restored == ["data/size.txt"]
