"""`labmake gc`: what nobody needs goes, what anybody may need stays, and no build ever misses what it looked up."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space import Space, wait_until

from labmake.model import Trace
from labmake.store.blobs import SMALL, Blobs
from labmake.store.gc import DAY, Known, survey, sweep
from labmake.store.index import MemoryIndex
from labmake.store.sharing import using
from labmake.store.state import State

SCRIPT = """
rule("data/large.bin", size="./size.txt", run=sh("head -c $(cat {size}) /dev/zero > {out}; echo made >> NOTES"))
rule("data/small.txt", size="./size.txt", run=sh("cat {size} > {out}; echo made >> NOTES"))
"""


@pytest.fixture
def twice(space: Space) -> Space:
    """Two results, made of 100000, then of 200000: the first ones are in the store only."""
    space.write("script.py", SCRIPT.replace("NOTES", str(space.notes)))
    for size in ("100000", "200000"):
        space.write("./size.txt", size)
        space.build()
    assert len(space.noted()) == 4
    return space


def state(space: Space) -> Path:
    return space.root / ".git" / "labmake"


def blobs(space: Space) -> list[int]:
    """The sizes of the large blobs."""
    return sorted(path.stat().st_size for path in (state(space) / "store" / "blobs").rglob("*") if path.is_file())


def segment_bytes(space: Space) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((state(space) / "store" / "segments").glob("*.seg")))


def test_what_was_used_lately_is_kept(twice: Space) -> None:
    assert "nothing to collect" in twice.run("gc", "-y")
    twice.write("./size.txt", "100000")
    twice.build()
    assert twice.restored == ["data/large.bin", "data/small.txt"] and len(twice.noted()) == 4


def test_what_no_worktree_has_and_nobody_used_for_so_long_is_removed(twice: Space) -> None:
    done = twice.run("gc", "--keep-days", "0", "-y")
    assert "results" in done and "100 kB" in done and "removed" in done
    assert blobs(twice) == [200000] and b"100000\n" not in segment_bytes(twice)
    twice.build()
    assert twice.ran == [] and twice.restored == []
    twice.run("clean")
    twice.build()
    assert twice.restored == ["data/large.bin", "data/small.txt"]
    twice.write("./size.txt", "100000")
    twice.build()
    assert twice.ran == ["data/large.bin", "data/small.txt"]  # it is gone, so it is made again
    assert "nothing to collect" in twice.run("gc", "-y")


def test_a_result_counts_as_used_until_it_was_replaced_however_old_it_is(twice: Space) -> None:
    """The branch that was left yesterday has results of last year."""
    for path in (state(twice) / "store").rglob("*"):
        os.utime(path, (1e9, 1e9))
    age_traces(state(twice) / "store", 365)
    assert "nothing to collect" in twice.run("gc", "-y")
    assert blobs(twice) == [100000, 200000]


def age_traces(store: Path, days: float) -> None:
    """Rewrite all segments as if their traces had been added so many days ago; what says when they were used stays."""
    from labmake.store import segments
    from labmake.store.live import view
    from labmake.store.traces import parse_trace, render_trace

    seen = view(store)
    for name, items in seen.segments.items():
        records = [segments.HEADER]
        for key, kind, location in items:
            payload = seen.payload(location)
            kept = parse_trace(payload) if kind == "T" else None
            if kept is not None:
                kept = type(kept)(kept.trace, kept.added - int(days * DAY * 1e9), kept.supersedes, kept.accepted)
                payload = render_trace(kept)
            records.append(segments.frame(kind, key, payload))
        (store / "segments" / f"9{name}").write_bytes(b"".join(records))
        (store / "segments" / name).unlink()
    seen.close()


def test_old_results_that_nobody_used_since_go_without_asking_for_days(space: Space) -> None:
    space.write("script.py", SCRIPT.replace("NOTES", str(space.notes)))
    space.write("./size.txt", "100000")
    space.build()
    shutil.rmtree(state(space) / "state")  # a worktree that was never heard of again
    age_traces(state(space) / "store", 40)
    assert "nothing to collect" in space.run("gc", "-y", "--keep-days", "50")
    assert "removed" in space.run("gc", "-y")
    shutil.rmtree(space.root / "generated")
    space.build()
    assert "data/small.txt" in space.ran and len(space.noted()) > 2


def test_a_dry_run_and_a_no_remove_nothing(twice: Space) -> None:
    before = segment_bytes(twice)
    done = twice.run("gc", "--keep-days", "0", "-n")
    assert "in all" in done and "removed" not in done
    assert blobs(twice) == [100000, 200000] and segment_bytes(twice) == before


def test_a_linked_worktree_keeps_its_results(twice: Space) -> None:
    twice.git("add", ".")
    twice.git("commit", "-q", "-m", "all")
    twice.git("worktree", "add", "-q", str(twice.root.parent / "linked"))
    linked = Space(twice.root.parent / "linked")
    linked.write("./size.txt", "300000")
    linked.build()
    done = twice.run("gc", "--keep-days", "0", "-y")
    assert "removed" in done and blobs(twice) == [200000, 300000]
    linked.run("clean")
    linked.build()
    assert linked.ran == [] and linked.restored == ["data/large.bin", "data/small.txt"]
    shutil.rmtree(linked.root)  # a worktree that is gone keeps nothing
    done = twice.run("gc", "--keep-days", "0", "-y")
    assert "state of worktrees that are gone" in done and blobs(twice) == [200000]


def test_an_index_that_knows_the_old_segments_finds_what_lives_in_the_new_ones(twice: Space) -> None:
    """Another worktree's state file still has the places of records before it, and numbers are not reused."""
    store = state(twice) / "store"
    names = {path.name for path in (store / "segments").glob("*.seg")}
    twice.run("gc", "--keep-days", "0", "-y")
    names -= {path.name for path in (store / "segments").glob("*.seg")}
    assert names
    for size in ("300000", "400000"):
        twice.write("./size.txt", size)
        twice.build()
    assert not names & {path.name for path in (store / "segments").glob("*.seg")}
    twice.write("./size.txt", "200000")
    twice.build()
    assert twice.restored == ["data/large.bin", "data/small.txt"]


def test_a_collection_waits_for_a_build_and_a_build_for_a_collection(space: Space) -> None:
    """The build has looked up nothing yet that the collection could take away, and finds what it needs later."""
    gate = space.root.parent / "gate"
    space.write("./a.txt", "1")
    text = f"""
        rule("data/old.txt", a="./a.txt", run=sh("cat {{a}} > {{out}}; echo old >> {space.notes}"))
        rule("data/slow.txt",
             run=sh("echo slow >> {space.notes}; until test -e {gate}; do sleep 0.1; done; touch {{out}}"))
        rule("data/both.txt", slow="data/slow.txt", old="data/old.txt", run=sh("cat {{old}} {{slow}} > {{out}}"))
        """
    space.write("script.py", text)
    space.build("data/old.txt")
    space.write("./a.txt", "2")
    space.build("data/old.txt")
    space.write("./a.txt", "1")
    build = space.start("build")
    wait_until(lambda: "slow" in space.noted())
    collection = subprocess.Popen(
        [sys.executable, "-m", "labmake.cli.entry", "gc", "--keep-days", "0", "-y"],
        cwd=space.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert collection.stdout is not None
    said = ""
    while "waiting" not in said:
        said += (piece := collection.stdout.read(1))
        assert piece, said
    assert collection.poll() is None
    gate.touch()
    build.end()
    collection.communicate(timeout=60)
    assert collection.returncode == 0
    assert space.noted() == ["old", "old", "slow"] and space.read("data/both.txt") == "1"
    space.run("clean")
    space.build()
    assert space.ran == []


def test_a_build_that_starts_during_a_collection_waits_until_it_is_done(twice: Space) -> None:
    from labmake.store.sharing import alone

    with alone(state(twice) / "store", lambda: None):
        build = twice.start("why", "data/small.txt")
        wait_until(lambda: "waiting until labmake gc has done" in build.text)
        assert build.process.poll() is None
    assert "up to date" in build.end()


def test_leftovers_of_killed_builds_and_of_mended_failures_go_and_those_of_failures_stay(space: Space) -> None:
    space.write("script.py", 'rule("data/{x}.txt", run=sh("test {x} = good; touch {out}"))')
    space.build("data/bad.txt", "data/worse.txt", code=1)
    space.write("script.py", 'rule("data/{x}.txt", run=sh("test {x} != bad; touch {out}"))')
    space.build("data/worse.txt")
    home = state(space)
    (home / "store" / "tmp").mkdir(exist_ok=True)
    (home / "store" / "tmp" / "123-1").write_bytes(b"x" * 5000)
    (home / "store" / "corrupt").mkdir()
    (home / "store" / "corrupt" / "abc-1").write_bytes(b"x")
    gone = home / "steps" / f"{os.uname().nodename}-4194303" / "0"
    gone.mkdir(parents=True)
    (home / "leases" / ("0" * 64)).touch()
    (home / "aside" / "2001-01-01-000000").mkdir(parents=True)
    young = time.strftime("%Y-%m-%d-%H%M%S")
    (home / "aside" / young).mkdir()
    done = space.run("gc", "-y")
    for words in ("unfinished files", "damaged results", "were killed", "mended", "set aside"):
        assert words in done, words
    assert not list((home / "store" / "tmp").iterdir()) and not list((home / "store" / "corrupt").iterdir())
    assert not gone.parent.exists() and {path.name for path in (home / "leases").iterdir()} <= {"table"}
    assert [path.name for path in (home / "aside").iterdir()] == [young]
    assert len(list((home / "failed").iterdir())) == 1 and "data/bad.txt" in space.run("failures")


def test_a_state_file_that_cannot_be_read_is_not_taken_for_one_that_needs_nothing(twice: Space) -> None:
    other = state(twice) / "state" / "0123456789ab-elsewhere.db"
    other.write_bytes(b"no database" * 100)
    done = twice.run("gc", "--keep-days", "0", "-y", code=5)
    assert str(other) in done and "→" in done and blobs(twice) == [100000, 200000]
    other.unlink()
    with sqlite3.connect(other) as database:
        database.execute("create table facts (other)")
    twice.run("gc", "--keep-days", "0", "-y", code=5)
    assert blobs(twice) == [100000, 200000]


def test_a_segment_that_is_being_written_is_left_as_it_is(tmp_path: Path) -> None:
    """A worker whose coordinator was killed may live for a moment longer."""
    writer = Blobs(tmp_path / "store", MemoryIndex())
    digest = writer.put_bytes(b"just written")
    rubbish = survey(tmp_path, Known([], []), 0, time.time() + 1)
    assert rubbish.kept and sweep(tmp_path, rubbish) == []
    assert writer.read(digest) == b"just written"
    writer.close()
    assert sweep(tmp_path, survey(tmp_path, Known([], []), 0, time.time() + 1)) == []
    assert not Blobs(tmp_path / "store", MemoryIndex()).has(digest)


def test_commands_share_the_store(tmp_path: Path) -> None:
    waited: list[str] = []
    with (
        using(tmp_path / "store", lambda: waited.append("one")),
        using(tmp_path / "store", lambda: waited.append("two")),
    ):
        assert waited == []


RESULT = st.tuples(st.binary(min_size=1, max_size=8), st.booleans(), st.booleans())


@settings(deadline=None, max_examples=30)
@given(st.lists(RESULT, min_size=1, max_size=12, unique_by=lambda one: one[0]), st.integers(1, 3))
def test_what_is_rooted_lives_with_all_it_names_and_nothing_else_does(
    tmp_path_factory: pytest.TempPathFactory, results: list[tuple[bytes, bool, bool]], times: int
) -> None:
    """Actions with inputs and outputs, some large: after collections, exactly the rooted ones are whole."""
    home = tmp_path_factory.mktemp("gc")
    blobs = Blobs(home / "store", State.open(home / "state" / "x.db"))
    actions: dict[str, tuple[bool, list[str]]] = {}
    for name, large, rooted in results:
        output = blobs.put_bytes(b"output " + name + b"x" * (SMALL if large else 0))
        given_to = blobs.put_bytes(b"input " + name)
        text = f'labmake action 1\ninput "a" [] {given_to}\ninput "b" 2 items {blobs.put_bytes(b"[] " + name)}\n'
        action = blobs.put_bytes(text.encode())
        log = blobs.put_bytes(b"log " + name)
        blobs.add_trace(Trace(action, {"out": output}, 1.0, 1, log))
        actions[action] = rooted, [action, output, given_to, log]
    blobs.close()
    roots = [action for action, (rooted, _) in actions.items() if rooted]
    for _ in range(times):
        assert sweep(home, survey(home, Known(roots, []), 0, time.time() + 1)) == []
    later = Blobs(home / "store", MemoryIndex())
    for action, (rooted, digests) in actions.items():
        assert (later.trace(action) is not None) == rooted
        assert all(later.has(digest) == rooted for digest in digests)
    rest = survey(home, Known(roots, []), 0, time.time() + 1)
    assert not rest.parts and not rest.kept
