"""The state file: collected, committed, shared, and begun anew when it is damaged."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labmake.errors import StoreError
from labmake.model import Json, digest_of
from labmake.store import state as module
from labmake.store.blobs import SMALL, Blobs
from labmake.store.state import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/worktree-host.db"


def test_what_is_put_is_seen_at_once_here_and_by_others_after_a_commit(path: Path) -> None:
    one, two = State.open(path), State.open(path)
    one.put_facts({"a": "1", "b": "2"})
    one.put_failures({"c": "3"})
    one.put_stats({"raw.csv": (1, 2, 2**64 - 1, 3, "digest")})
    one.memo_put("code", {"parsed": [1, None, "é"]})
    one.put_many([("key", "B", ("00.seg", 10, 5))])
    one.put_offset("00.seg", 20)

    def seen(state: State) -> tuple[Json, ...]:
        return (
            state.facts(),
            state.failures(),
            state.stats(),
            state.memo_get("code"),
            state.get("B", "key"),
            State.open(path).offsets() if state is two else state.offsets(),
        )

    assert seen(two) == ({}, {}, {}, None, [], {})
    full = (
        {"a": "1", "b": "2"},
        {"c": "3"},
        {"raw.csv": (1, 2, 2**64 - 1, 3, "digest")},
        {"parsed": [1, None, "é"]},
        [("00.seg", 10, 5)],
        {"00.seg": 20},
    )
    assert seen(one) == full
    one.commit()
    assert seen(one) == full == seen(two)
    one.drop_facts(["a", "absent"])
    one.drop_failures(["c"])
    one.drop_stats(["raw.csv"])
    one.memo_put("code", None)
    one.drop("B", "key")
    one.drop_segment("00.seg")
    empty = ({"b": "2"}, {}, {}, None, [], {})
    assert seen(one) == empty
    one.commit()
    assert seen(one) == empty == seen(two)


def test_a_dropped_segment_takes_its_records_along_and_can_be_entered_again(path: Path) -> None:
    state = State.open(path)
    state.put_many([("a", "B", ("00.seg", 10, 5)), ("a", "B", ("01.seg", 10, 5))])
    state.commit()
    state.put_many([("b", "B", ("00.seg", 30, 5))])
    state.drop_segment("00.seg")
    state.put_many([("c", "B", ("00.seg", 10, 5))])
    state.put_offset("00.seg", 20)
    for one in (state, None):
        if one is None:
            state.commit()
            one = State.open(path)
        assert one.get("B", "a") == [("01.seg", 10, 5)]
        assert one.get("B", "b") == [] and one.get("B", "c") == [("00.seg", 10, 5)]
        assert one.offsets()["00.seg"] == 20


def test_closing_commits(path: Path) -> None:
    state = State.open(path)
    state.put_facts({"a": "1"})
    state.close()
    assert State.open(path).facts() == {"a": "1"}


def _break_header(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def _break_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(bytes(data))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _another_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("pragma user_version = 99")


def _somebody_elses(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("create table facts (other)")


@pytest.mark.parametrize("harm", [_break_header, _break_pages, _truncate, _another_version, _somebody_elses])
def test_a_damaged_or_foreign_file_is_renamed_away_and_begun_anew(path: Path, harm: object) -> None:
    state = State.open(path)
    state.put_facts({f"node {number}": "x" * 100 for number in range(500)})
    state.put_offset("00.seg", 1000)
    state.close()
    harm(path)  # type: ignore[operator]
    again = State.open(path)
    assert again.facts() == {} and again.offsets() == {}
    again.put_facts({"a": "1"})
    again.close()
    assert State.open(path).facts() == {"a": "1"}
    assert Path(f"{path}.broken").exists()


def test_damage_during_a_build_loses_what_was_known_but_not_what_is_pending(path: Path) -> None:
    state = State.open(path)
    state.put_facts({f"node {number}": "x" * 100 for number in range(500)})
    state.put_offset("00.seg", 1000)
    state.close()
    state = State.open(path)
    assert state.offsets() == {"00.seg": 1000}
    _break_pages(path)
    state.put_facts({"new": "1"})
    state.put_offset("00.seg", 2000)
    state.commit()
    assert state.facts() == {"new": "1"} == State.open(path).facts()
    assert state.offsets() == {} == State.open(path).offsets()


def test_a_folder_that_cannot_be_used_is_said_in_three_parts(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    with pytest.raises(StoreError) as caught:
        State.open(tmp_path / "state/x.db")
    assert caught.value.facts and caught.value.todo


def test_a_lock_held_too_long_is_a_store_error_and_keeps_what_is_pending(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State.open(path)
    state._database.execute("pragma busy_timeout = 10")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    state.put_facts({"a": "1"})
    with pytest.raises(StoreError):
        state.commit()
    other.execute("rollback")
    state.commit()
    assert State.open(path).facts() == {"a": "1"} and not Path(f"{path}.broken").exists()


def test_a_value_that_sqlite_cannot_take_leaves_the_file_as_it_was(path: Path) -> None:
    state = State.open(path)
    state.put_facts({"good": "1"})
    state.commit()
    state.put_facts({"other": "2", "lone \ud800 surrogate": "3"})
    with pytest.raises(UnicodeEncodeError):
        state.commit()
    assert State.open(path).facts() == {"good": "1"}


def _put_facts(path: Path, name: str, amount: int) -> None:
    state = State.open(path)
    for number in range(amount):
        state.put_facts({f"{name} {number}": "x"})
        state.commit()
    state.close()


def test_two_processes_write_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_facts, args=(path, name, 200)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(State.open(path).facts()) == 400 and not Path(f"{path}.broken").exists()


_ENDLESS = """
import sys
from pathlib import Path
from labmake.store.state import State
state = State.open(Path(sys.argv[1]))
for batch in range(10**9):
    state.put_facts({f"{batch}-{number}": "x" * 100 for number in range(50)})
    state.commit()
    state.put_facts({"pending": "lost"})
    print(batch, flush=True)
    state.drop_facts(["pending"])
"""


def test_kill_9_loses_at_most_what_was_not_committed(path: Path) -> None:
    for _ in range(3):
        environment = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}
        command = [sys.executable, "-c", _ENDLESS, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        for _ in range(20):
            reported = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
        state = State.open(path)
        facts = state.facts()
        assert all(f"{batch}-{number}" in facts for batch in range(reported + 1) for number in range(50))
        assert len([node for node in facts if node != "pending"]) % 50 == 0
        state.close()
    assert not Path(f"{path}.broken").exists()


def test_the_index_finds_the_stores_records_without_reading_them_again(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State.open(path)
    blobs = Blobs(tmp_path / "store", state)
    digests = [blobs.put_bytes(b"%d" % number) for number in range(100)] + [blobs.put_bytes(b"x" * 2 * SMALL)]
    state.close()
    monkeypatch.setattr("labmake.store.records.scan", lambda *_: pytest.fail("read a segment"))
    again = Blobs(tmp_path / "store", State.open(path))
    assert all(again.read(digest) for digest in digests)
    assert not again.has(digest_of(b"absent"))


def test_a_lost_index_is_rebuilt_from_the_segments(tmp_path: Path, path: Path) -> None:
    state = State.open(path)
    blobs = Blobs(tmp_path / "store", state)
    digests = [blobs.put_bytes(b"%d" % number) for number in range(100)]
    state.close()
    path.unlink()
    state = State.open(path)
    blobs = Blobs(tmp_path / "store", state)
    assert all(blobs.has(digest) for digest in digests)
    state.close()


def test_an_index_lost_during_a_build_hides_nothing_from_the_next(tmp_path: Path, path: Path) -> None:
    state = State.open(path)
    blobs = Blobs(tmp_path / "store", state)
    before = blobs.put_bytes(b"before")
    state.commit()
    state.put_facts({f"node {number}": "x" * 100 for number in range(500)})
    state.close()
    state = State.open(path)
    blobs = Blobs(tmp_path / "store", state)
    assert blobs.has(before)
    _break_pages(path)
    after = blobs.put_bytes(b"after")
    state.close()
    blobs = Blobs(tmp_path / "store", State.open(path))
    assert blobs.has(before) and blobs.has(after)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values.filter(lambda value: value is not None))
def test_the_memo_gives_back_what_it_was_given(tmp_path_factory: pytest.TempPathFactory, value: Json) -> None:
    state = State.open(tmp_path_factory.getbasetemp() / f"memo-{os.getpid()}.db")
    state.memo_put("key", value)
    assert state.memo_get("key") == value
    state.close()
    again = State.open(state.path)
    assert again.memo_get("key") == value
    again._database.close()


def test_the_version_is_that_of_the_tables(path: Path) -> None:
    State.open(path).close()
    with sqlite3.connect(path) as database:
        assert database.execute("pragma user_version").fetchone() == (module.VERSION,)
