"""On a network file system: lock files with heartbeats, a state file on a local disk, several hosts at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from space import Running, Space, wait_until
from test_story_together import EXPECTED, FANOUT

from labmake.model import digest_of
from labmake.store import localstate
from labmake.store.live import view
from labmake.store.lockfiles import DEAD
from labmake.store.state import State

HOSTS = pytest.mark.skipif(sys.platform != "linux", reason="hosts of one kernel are a thing of Linux")


@pytest.fixture
def far(space: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """A project that counts as one on a network file system, with a fan-out; steps note that they ran."""
    monkeypatch.setenv("LABMAKE_LOCKS", "files")
    monkeypatch.setenv("XDG_CACHE_HOME", str(space.root.parent / "cache"))
    space.write("script.py", FANOUT.format(log=space.notes))
    space.git("add", ".")
    return space


def on_host(space: Space, name: str, *words: str) -> Running:
    """Start labmake on a host with another name and a local disk of its own: a namespace of the kernel."""
    unshare = ["unshare", "--uts"] if os.geteuid() == 0 else ["unshare", "-r", "--uts"]
    command = [*unshare, "sh", "-c", f'hostname {name}; exec "$@"', "sh", sys.executable, "-m", "labmake.cli.entry"]
    log = (space.root.parent / f"running-{name}.log").open("w")
    process = subprocess.Popen(
        [*command, *words],
        cwd=space.root,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "XDG_CACHE_HOME": str(space.root.parent / f"cache-{name}")},
        start_new_session=True,
    )
    return Running(space, process, Path(log.name))


def labmake(space: Space) -> Path:
    return space.root / ".git" / "labmake"


def locks(space: Space) -> list[Path]:
    """All lock files that are left."""
    found = [*labmake(space).glob("leases/*"), *labmake(space).glob("store/users/*"), labmake(space) / "store/gc.alone"]
    found += labmake(space).glob("store/segments/*.lock*")
    return [path for path in found if path.exists()]


def test_a_build_is_as_anywhere_and_no_lock_is_left(far: Space) -> None:
    far.build("-j2")
    assert sorted(far.noted()) == EXPECTED and far.read("data/all.txt").count("fit") == 12
    assert not [path for path in locks(far) if "segments" not in str(path)]
    far.path("data/all.txt").unlink()
    far.build()
    assert far.ran == [] and far.restored == ["data/all.txt"]
    assert "lock files" in far.run("doctor")


@HOSTS
def test_three_builds_on_two_hosts_run_each_step_once(far: Space) -> None:
    builds = [on_host(far, "node1", "build", "-j1"), on_host(far, "node2", "build", "-j2"), far.start("build", "-j1")]
    for build in builds:
        build.end(0)
    assert sorted(far.noted()) == EXPECTED
    names = {path.name.partition("-")[2] for path in labmake(far).glob("store/segments/*.seg")}
    assert len(names) >= 2, "each host writes segments of its own"


def test_a_killed_build_of_this_host_is_taken_over_at_once(far: Space) -> None:
    killed = far.start("build", "-j2")
    wait_until(lambda: "fit" in "".join(far.noted()))
    waiting = far.start("build", "-j2")
    killed.kill()
    waiting.end(0)
    assert far.read("data/all.txt").count("fit") == 12


def test_a_host_that_vanished_is_taken_over_when_its_heartbeat_is_old(far: Space) -> None:
    far.write("script.py", 'rule("data/x", run=sh("echo x > {out}"))')
    far.build()
    lease = labmake(far) / "leases" / action_of(far, "data/x")
    shutil.rmtree(labmake(far) / "store")
    far.path("data/x").unlink()
    lease.write_text("node9/00000000/1 77 88 0-1")
    waiting = far.start("build", "data/x")
    time.sleep(1)
    assert waiting.process.poll() is None and not far.exists("data/x")
    stamp = time.time() - DEAD - 5
    os.utime(lease, (stamp, stamp))
    waiting.end(0)
    assert far.read("data/x") == "x\n" and not lease.exists()


def action_of(space: Space, name: str) -> str:
    """The hex digits of the action that made a target, from the store's traces."""
    wanted = digest_of(space.path(name).read_bytes())
    seen = view(labmake(space) / "store")
    try:
        traces = [(key, trace) for kind, key in seen.places if kind == "T" for trace, _ in seen.traces(key)]
    finally:
        seen.close()
    return next(key[:64] for key, trace in traces if wanted in trace.outputs.values())


def test_the_state_file_lies_on_a_local_disk_and_a_copy_where_it_belongs(far: Space) -> None:
    far.build()
    (local,) = (far.root.parent / "cache").glob("labmake-*/*.db")
    (copy,) = (labmake(far) / "state").glob("*.db")
    assert not list((labmake(far) / "state").glob("*-wal"))
    assert copy.read_bytes()[18:20] == b"\1\1", "no WAL: it may be read over a network"
    shutil.rmtree(local.parent)
    far.write("script.py", far.read("script.py") + "\n# a comment\n")
    far.build()
    assert far.ran == far.restored == [] and local.exists()
    shutil.rmtree(far.root.parent / "cache")
    copy.write_bytes(b"garbage" * 1000)
    far.build()
    assert far.ran == [] and sorted(far.noted()) == EXPECTED


def test_without_any_local_disk_the_state_file_is_used_in_place(far: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localstate, "_local_folder", lambda: None)
    state = State.open(labmake(far) / "state" / "x.db")
    assert state.path == labmake(far) / "state" / "x.db"
    state.put_facts({"a": "1"})
    state.close()
    assert state.path.read_bytes()[18:20] == b"\1\1" and not list(state.path.parent.glob("*-wal"))
    assert State.open(state.path).facts() == {"a": "1"}


@HOSTS
def test_a_collection_waits_for_the_builds_of_all_hosts_and_takes_nothing_of_theirs(far: Space) -> None:
    flag = far.root.parent / "flag"
    slow = f"touch {flag}; sleep 1; echo y > {{out}}"
    far.write("script.py", f'rule("data/x", run=sh("echo x > {{out}}"))\nrule("data/y", run=sh("{slow}"))\n')
    building = on_host(far, "node1", "build", "-j1")
    wait_until(flag.exists)
    collecting = on_host(far, "node2", "gc", "--keep-days", "0", "-y")
    building.end(0)
    collecting.end(0)
    assert len(list((labmake(far) / "state").glob("*-node1.db"))) == 1
    shutil.rmtree(far.root / "generated")
    far.build()
    assert far.ran == [] and far.restored == ["data/x", "data/y"]


def test_a_word_that_means_nothing_is_told(far: Space) -> None:
    done = far.run("build", code=2, env={"LABMAKE_LOCKS": "perhaps"})
    assert "LABMAKE_LOCKS" in done and "→" in done
