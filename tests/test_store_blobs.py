"""The store: blobs and traces survive what happens to processes and disks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labmake.errors import StoreError
from labmake.model import Trace, digest_of
from labmake.seams import GRANULARITY
from labmake.store import records, segments
from labmake.store.blobs import SMALL, Blobs, MemoryIndex
from labmake.store.digest import Entry, FileChanged, digest_file, render_manifest

LARGE = b"large" * SMALL


def store(root: Path, *, follow: bool = True) -> Blobs:
    return Blobs(root / "store", MemoryIndex(), follow=follow)


def trace(result: bytes, when: float = 1.0, action: str = "") -> Trace:
    return Trace(action or digest_of(b"action"), {"out": digest_of(result)}, 1.5, 1000, digest_of(b"log"), when)


def overwrite(path: Path, data: bytes) -> None:
    """Changes a blob's bytes in place, as somebody does who overrides its mode."""
    path.chmod(0o644)
    path.write_bytes(data)


def segment_files(root: Path) -> list[Path]:
    return sorted((root / "store/segments").iterdir())


@pytest.mark.parametrize("data", [b"", b"small", b"x" * SMALL, b"x" * (SMALL + 1), LARGE])
def test_what_was_put_is_read_by_this_instance_and_the_next(tmp_path: Path, data: bytes) -> None:
    digest = digest_of(data)
    blobs = store(tmp_path)
    assert not blobs.has(digest) and blobs.locate(digest) is None
    assert blobs.put_bytes(data) == digest
    for one in (blobs, store(tmp_path)):
        assert one.has(digest) and one.has(digest + "*")
        assert one.read(digest) == data == one.read(digest + "*")


def test_small_blobs_are_records_and_large_ones_read_only_files(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    small, large = blobs.put_bytes(b"small"), blobs.put_bytes(LARGE)
    location = blobs.locate(small)
    assert location is not None and location[0] == "00.seg" and blobs.read_at(location) == b"small"
    assert blobs.locate(large) == ("", 0, len(LARGE))
    status = blobs.blob_path(large).stat()
    assert status.st_mode & 0o777 == 0o444
    probe = tmp_path / "now"
    probe.touch()
    assert status.st_mtime_ns <= probe.stat().st_mtime_ns - GRANULARITY


def test_a_blob_is_stored_once(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    blobs.put_bytes(b"small")
    size = segment_files(tmp_path)[0].stat().st_size
    blobs.put_bytes(b"small")
    store(tmp_path).put_bytes(b"small")
    assert [file.stat().st_size for file in segment_files(tmp_path)] == [size]


def test_a_large_file_becomes_the_blob_and_a_small_one_stays(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    for data, stays in ((LARGE, False), (LARGE, False), (b"small", True)):
        path = tmp_path / "out"
        path.write_bytes(data)
        blobs.put_file(str(path), digest_of(data))
        assert path.exists() == stays and blobs.read(digest_of(data)) == data
    assert not list((tmp_path / "store").glob("tmp/*/*"))


def test_a_file_with_a_second_name_is_copied_so_that_writing_there_does_not_reach_the_store(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    source, output, link = tmp_path / "source", tmp_path / "out", tmp_path / "link"
    source.write_bytes(LARGE)
    output.hardlink_to(source)
    blobs.put_file(str(output), digest_of(LARGE))
    other = LARGE + b"!"
    source.write_bytes(other)
    assert blobs.read(digest_of(LARGE)) == LARGE and not output.exists()
    link.symlink_to(source)
    blobs.put_file(str(link), digest_of(other))
    assert blobs.read(digest_of(other)) == other and not link.is_symlink() and source.read_bytes() == other


def test_a_file_from_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = store(tmp_path)
    path = tmp_path / "out"
    path.write_bytes(LARGE)
    rename = os.rename

    def refuse(source: str, target: object) -> None:
        if source == str(path):
            raise OSError(errno.EXDEV, "another device")
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", refuse)
    blobs.put_file(str(path), digest_of(LARGE))
    assert blobs.read(digest_of(LARGE)) == LARGE and not path.exists()


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_a_copy_leaves_the_file_and_notices_other_bytes(tmp_path: Path, data: bytes) -> None:
    blobs = store(tmp_path)
    path = tmp_path / "raw.csv"
    path.write_bytes(data[::-1])
    with pytest.raises(FileChanged):
        blobs.put_copy(str(path), digest_of(data))
    assert not blobs.has(digest_of(data)) and not list((tmp_path / "store").glob("tmp/*/*"))
    path.write_bytes(data)
    blobs.put_copy(str(path), digest_of(data))
    assert path.read_bytes() == data == blobs.read(digest_of(data))


def test_a_full_disk_is_said_in_three_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = store(tmp_path)
    (tmp_path / "f").write_bytes(LARGE)
    blobs.put_bytes(b"first")
    monkeypatch.setattr(os, "write", full)
    for put in (
        lambda: blobs.put_bytes(b"small"),
        lambda: blobs.put_bytes(LARGE),
        lambda: blobs.put_copy(str(tmp_path / "f"), digest_of(LARGE)),
    ):
        with pytest.raises(StoreError) as caught:
            put()
        assert ("reason", "No space left on device") in caught.value.facts and caught.value.todo


def test_a_record_that_does_not_fit_on_the_disk_leaves_the_segment_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = store(tmp_path)
    first = blobs.put_bytes(b"first")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(StoreError):
            blobs.put_bytes(b"second")
    third = blobs.put_bytes(b"third")
    assert [store(tmp_path).read(digest) for digest in (first, third)] == [b"first", b"third"]
    assert not store(tmp_path).has(digest_of(b"second"))


# Damage


def test_a_missing_blob_is_an_error_in_three_parts(tmp_path: Path) -> None:
    for data in (b"small", LARGE):
        with pytest.raises(StoreError) as caught:
            store(tmp_path).read(digest_of(data))
        assert caught.value.facts and caught.value.todo


def test_a_damaged_large_blob_is_noticed_set_aside_and_can_be_put_again(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digest = blobs.put_bytes(LARGE)
    overwrite(blobs.blob_path(digest), LARGE[::-1])  # the same size
    assert not blobs.has(digest)
    (aside,) = (tmp_path / "store/corrupt").iterdir()
    assert aside.read_bytes() == LARGE[::-1]
    with pytest.raises(StoreError):
        blobs.read(digest)
    blobs.put_bytes(LARGE)
    assert blobs.verify(digest) and blobs.read(digest) == LARGE


def test_a_damaged_blob_is_noticed_when_the_same_bytes_are_put_again(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digest = blobs.put_bytes(LARGE)
    overwrite(blobs.blob_path(digest), b"short")
    blobs.put_bytes(LARGE)
    assert blobs.read(digest) == LARGE


def test_a_sound_blob_is_not_hashed_again_even_by_another_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store(tmp_path).put_bytes(LARGE)
    monkeypatch.setattr("labmake.store.blobs.hash_file", lambda path: pytest.fail(f"hashed {path}"))
    assert store(tmp_path).verify(digest) and store(tmp_path).has(digest)


def test_a_touched_blob_is_hashed_once_and_trusted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = store(tmp_path)
    digest = blobs.put_bytes(LARGE)
    os.utime(blobs.blob_path(digest))
    assert blobs.verify(digest)
    monkeypatch.setattr("labmake.store.blobs.hash_file", lambda path: pytest.fail(f"hashed {path}"))
    assert blobs.verify(digest) and store(tmp_path).verify(digest)


def test_an_edit_in_the_moment_after_a_blob_was_verified_is_noticed(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digest = blobs.put_bytes(LARGE)
    path = blobs.blob_path(digest)
    for _ in range(20):
        overwrite(path, LARGE)
        assert blobs.verify(digest)
        overwrite(path, LARGE[::-1])
        assert not blobs.verify(digest)
        blobs.put_bytes(LARGE)


def test_a_damaged_record_counts_as_missing_and_the_ones_after_it_are_found(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digests = [blobs.put_bytes(data) for data in (b"first", b"second", b"third")]
    (file,) = segment_files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"second", b"sEcond"))
    for one in (blobs, store(tmp_path)):
        with pytest.raises(StoreError):
            one.read(digests[1])
        assert not one.has(digests[1])
        assert (one.read(digests[0]), one.read(digests[2])) == (b"first", b"third")
    blobs.close()
    again = store(tmp_path)
    again.put_bytes(b"second")
    again.put_bytes(b"fourth")
    assert [store(tmp_path).read(digest_of(data)) for data in (b"second", b"third", b"fourth")]


def test_a_segment_that_was_deleted_or_replaced_is_noticed(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digest = blobs.put_bytes(b"first")
    blobs.close()
    (file,) = segment_files(tmp_path)
    file.unlink()
    time.sleep(0.05)
    blobs.refresh()
    assert not blobs.has(digest)
    store(tmp_path).put_bytes(b"other")
    blobs.refresh()
    assert blobs.read(digest_of(b"other")) == b"other" and not blobs.has(digest)


def test_a_segment_of_another_version_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "store/segments"
    folder.mkdir(parents=True)
    (folder / "00.seg").write_bytes(b"labmake segment 2\n" + b"x" * 100)
    blobs = store(tmp_path)
    location = blobs.locate(blobs.put_bytes(b"data"))
    assert location is not None and location[0] == "01.seg"
    assert (folder / "00.seg").read_bytes() == b"labmake segment 2\n" + b"x" * 100


# Crashes and company


def test_a_torn_tail_is_ignored_by_readers_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    first = blobs.put_bytes(b"first")
    (file,) = segment_files(tmp_path)
    whole = file.read_bytes()
    blobs.put_bytes(b"torn" * 100)
    blobs.close()
    longer = file.read_bytes()
    for cut in range(len(whole) + 1, len(longer)):
        file.write_bytes(longer[:cut])
        reader = store(tmp_path)
        assert reader.has(first) and not reader.has(digest_of(b"torn" * 100))
        writer = store(tmp_path)
        after = writer.put_bytes(b"after")
        writer.close()
        assert reader.read(first) == b"first" and reader.read(after) == b"after"
        assert file.read_bytes()[: len(whole)] == whole and b"torn" not in file.read_bytes()


@pytest.mark.parametrize("length", range(len(segments.HEADER)))
def test_a_crash_while_a_segment_is_begun_is_repaired(tmp_path: Path, length: int) -> None:
    folder = tmp_path / "store/segments"
    folder.mkdir(parents=True)
    (folder / "00.seg").write_bytes(segments.HEADER[:length])
    blobs = store(tmp_path)
    assert not blobs.has(digest_of(b"data"))
    blobs.put_bytes(b"data")
    assert store(tmp_path).read(digest_of(b"data")) == b"data" and len(segment_files(tmp_path)) == 1


def test_a_writer_finds_the_end_of_a_segment_longer_than_it_looks_back(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    many = [blobs.put_bytes(bytes([number]) * SMALL) for number in range(10)]
    blobs.add_trace(trace(b"x" * 200_000))
    blobs.add_trace(Trace(digest_of(b"long"), {f"out{n}": digest_of(b"") for n in range(2000)}, 1.0, 1, "", 1.0))
    blobs.close()
    (file,) = segment_files(tmp_path)
    size = file.stat().st_size
    with file.open("ab") as torn:
        torn.write(segments.frame("B", "key", b"x" * 99)[:-1])
    after = store(tmp_path)
    after.put_bytes(b"after")
    data = file.read_bytes()
    assert data[size:].endswith(segments.frame("B", digest_of(b"after"), b"after"))
    assert len(data) - size == len(segments.frame("B", digest_of(b"after"), b"after"))
    assert all(store(tmp_path).has(digest) for digest in many)


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LIMIT", 10_000)
    monkeypatch.setattr(records, "LIMIT", 10_000)
    blobs, watcher = store(tmp_path), store(tmp_path)
    digests = []
    for number in range(20):
        digests.append(blobs.put_bytes(bytes([number]) * 3000))
        assert watcher.has(digests[-1])
    assert len(segment_files(tmp_path)) > 4
    assert all(store(tmp_path).has(digest) for digest in digests)


def test_two_writers_use_two_segments_and_see_each_others_records(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    for number in range(50):
        first, second = one.put_bytes(b"one %d" % number), two.put_bytes(b"two %d" % number)
        assert two.read(first) == b"one %d" % number and one.read(second) == b"two %d" % number
    assert len(segment_files(tmp_path)) == 2


def _put_many(root: Path, name: str, amount: int) -> None:
    blobs = Blobs(root / "store", MemoryIndex())
    for number in range(amount):
        blobs.put_bytes(f"{name} {number}".encode())
        if number % 50 == 0:
            blobs.put_bytes(LARGE + f"{number}".encode())  # both put the same


def test_two_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_many, args=(tmp_path, name, 500)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    blobs = store(tmp_path)
    for name in ("a", "b"):
        for number in range(500):
            assert blobs.read(digest_of(f"{name} {number}".encode())) == f"{name} {number}".encode()
    assert all(blobs.verify(digest_of(LARGE + f"{number}".encode())) for number in range(0, 500, 50))
    assert not (tmp_path / "store/corrupt").exists()


def test_a_forked_child_appends_to_a_segment_of_its_own(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    blobs.put_bytes(b"parent 1")
    child = os.fork()
    if child == 0:
        try:
            blobs.put_bytes(b"child")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    blobs.put_bytes(b"parent 2")
    assert all(store(tmp_path).has(digest_of(data)) for data in (b"parent 1", b"child", b"parent 2"))
    assert len(segment_files(tmp_path)) == 2


_ENDLESS = """
import sys
from pathlib import Path
from labmake.store.blobs import Blobs, MemoryIndex
blobs = Blobs(Path(sys.argv[1]), MemoryIndex())
for number in range(10**9):
    blobs.put_bytes(f"{number} ".encode() * 100)
    if number % 10 == 0:
        blobs.put_bytes(f"{number} ".encode() * 10000)
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    for attempt in range(3):
        root = tmp_path / "store"
        environment = os.environ | {"PYTHONPATH": str(Path(segments.__file__).parents[2])}
        command = [sys.executable, "-c", _ENDLESS, str(root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        for _ in range(30 * (attempt + 1)):
            reported = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
        blobs = store(tmp_path)
        for number in range(reported + 1):
            assert blobs.read(digest_of(f"{number} ".encode() * 100))
            if number % 10 == 0:
                assert blobs.read(digest_of(f"{number} ".encode() * 10000))
        assert blobs.has(blobs.put_bytes(b"the next build goes on"))
        blobs.close()
        assert len(segment_files(tmp_path)) == 1


def test_a_worker_tells_its_coordinator_what_it_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator, worker = store(tmp_path), store(tmp_path, follow=False)
    coordinator.has(digest_of(b""))
    small, large = worker.put_bytes(b"small"), worker.put_bytes(LARGE)
    worker.add_trace(trace(b"result"))
    assert [(key, kind) for key, kind, _ in worker.learned] == [(small, "B"), (large, "L"), (digest_of(b"action"), "T")]
    items = worker.take_learned()
    assert worker.learned == [] == worker.take_learned()
    monkeypatch.setattr(records, "scan", lambda *_: pytest.fail("read the segments"))
    coordinator.learn([[key, kind, list(location)] for key, kind, location in items])  # type: ignore[arg-type]
    assert coordinator.read(small) == b"small" and coordinator.verify(large)
    assert coordinator.trace(digest_of(b"action")) == trace(b"result")


def test_a_worker_that_does_not_follow_reads_no_segments(tmp_path: Path) -> None:
    store(tmp_path).put_bytes(b"other's")
    worker = store(tmp_path, follow=False)
    assert not worker.has(digest_of(b"other's"))
    location = store(tmp_path).locate(digest_of(b"other's"))
    assert location is not None and worker.read_at(location) == b"other's"


def test_a_location_in_a_segment_that_is_gone_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store(tmp_path).read_at(("77.seg", 100, 10))


def test_a_folder_is_here_only_with_all_its_files(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    one, two = digest_of(b"one"), digest_of(b"two")
    folder = blobs.put_bytes(render_manifest([Entry("f", "a", one), Entry("x", "b", two), Entry("d", "c")])) + "/"
    blobs.put_bytes(b"one")
    assert not blobs.has(folder)
    blobs.put_bytes(b"two")
    assert blobs.has(folder)


# Traces


def test_the_first_trace_stands_and_later_ones_are_evidence(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    action = digest_of(b"action")
    assert blobs.trace(action) is None and blobs.traces(action) == []
    blobs.add_trace(trace(b"first", when=9.0))
    blobs.add_trace(trace(b"pulled, though made earlier", when=1.0))
    for one in (blobs, store(tmp_path)):
        assert one.trace(action) == trace(b"first", when=9.0)
        assert [kept.when for kept in one.traces(action)] == [9.0, 1.0]


def test_a_superseding_trace_stands_until_the_next_one(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    action = digest_of(b"action")
    for result, supersede, standing in (
        (b"first", True, b"first"),
        (b"second", True, b"second"),
        (b"third", False, b"second"),
        (b"first", True, b"first"),
    ):
        blobs.add_trace(trace(result), supersede)
        assert store(tmp_path).trace(action) == trace(standing)
    assert len(blobs.traces(action)) == 4


def test_an_equal_result_is_not_recorded_twice(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    for result, supersede in ((b"a", False), (b"b", False), (b"b", False), (b"a", True), (b"a", False)):
        blobs.add_trace(trace(result, when=time.time()), supersede)
    assert len(blobs.traces(digest_of(b"action"))) == 2


def test_traces_by_two_processes_stand_in_the_order_they_came(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    one.put_bytes(b"takes the first segment")
    two.add_trace(trace(b"earlier"))
    one.add_trace(trace(b"later"))
    assert store(tmp_path).trace(digest_of(b"action")) == trace(b"earlier")


def test_a_trace_of_another_version_counts_as_missing(tmp_path: Path) -> None:
    writer = segments.Writer(str(store(tmp_path).root / "segments"))
    writer.append([("T", "action", b'{"action":"action"}'), ("T", "action", b"[1]")])
    assert store(tmp_path).trace("action") is None


def test_the_digest_of_a_placed_large_blob_is_its_name(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digest = blobs.put_bytes(LARGE)
    assert digest_file(str(blobs.blob_path(digest))) == digest
