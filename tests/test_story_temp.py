"""Results that are not to stay: cache=False takes none from the store, temp=True removes it after its last reader."""

from __future__ import annotations

import time

import pytest
from space import Space, wait_until

LARGE = 40_000
"""Bytes of a temporary target: more than what lies in the store's segments."""

CHAIN = f"""
rule("big.bin", x="./x.txt", temp=True, run=sh("head -c {LARGE} /dev/zero > {{out}}; cat {{x}} >> {{out}}"))
rule("sum.txt", big="big.bin", run=sh("sha256sum < {{big}} > {{out}}"))
rule("last.txt", big="big.bin", word="./word.txt", run=sh("(cat {{word}}; tail -c 2 {{big}}) > {{out}}"))
"""


def stored(space: Space) -> int:
    """Bytes of the large results in the store."""
    folder = space.root / ".git" / "labmake" / "store" / "blobs"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def chain(space: Space) -> Space:
    space.write("./x.txt", "x\n")
    space.write("script.py", CHAIN)
    space.write("./word.txt", "one\n")
    return space


# cache=False --------------------------------------------------------------------------------------------------------


def test_a_step_that_is_not_cached_runs_again_when_an_edit_is_taken_back(space: Space) -> None:
    space.write("./x.txt", "x\n")
    space.write(
        "script.py",
        """
        rule("a.txt", x="./x.txt", cache=False, run=sh("cat {x} > {out}"))
        rule("b.txt", a="a.txt", run=sh("cat {a} > {out}"))
        """,
    )
    space.build()
    space.build()
    assert space.ran == []
    space.write("./x.txt", "y\n")
    space.build()
    space.write("./x.txt", "x\n")
    space.build()
    assert space.ran == ["a.txt"] and space.restored == ["b.txt"]


def test_a_step_that_is_not_cached_runs_in_every_worktree(space: Space) -> None:
    space.write("./x.txt", "x\n")
    space.write("script.py", 'rule("a.txt", x="./x.txt", cache=False, run=sh("date +%s%N > {out}"))\n')
    space.git("add", "-A")
    space.git("commit", "-qm", "all")
    space.build()
    space.git("worktree", "add", "-q", "../other")
    other = Space(space.root.parent / "other", space.experiment)
    other.build()
    assert other.ran == ["a.txt"] and other.read("a.txt") != space.read("a.txt")
    space.build()
    assert space.ran == [] and space.restored == []


# temp=True ----------------------------------------------------------------------------------------------------------


def test_a_temporary_target_is_gone_when_its_last_reader_is_done_and_nothing_is_made_for_it(chain: Space) -> None:
    chain.build()
    assert chain.ran == ["big.bin", "last.txt", "sum.txt"]
    assert sorted(chain.files()) == ["last.txt", "sum.txt"] and stored(chain) == 0
    for _ in range(3):
        chain.build()
        assert chain.ran == [] and "up to date" in chain.last
        time.sleep(0.05)


def test_it_is_made_again_for_a_reader_that_has_to_run_and_for_no_other(chain: Space) -> None:
    chain.build()
    chain.write("./word.txt", "two\n")
    chain.build()
    assert chain.ran == ["big.bin", "last.txt"]
    assert chain.read("last.txt") == "two\nx\n"
    assert sorted(chain.files()) == ["last.txt", "sum.txt"] and stored(chain) == 0


def test_results_of_it_are_restored_without_it(chain: Space) -> None:
    chain.build()
    chain.path("sum.txt").unlink()
    chain.build()
    assert chain.ran == [] and chain.restored == ["sum.txt"]
    chain.write("./x.txt", "y\n")
    chain.build()
    assert chain.ran == ["big.bin", "last.txt", "sum.txt"]
    chain.write("./x.txt", "x\n")
    chain.build()
    assert chain.ran == [] and chain.restored == ["last.txt", "sum.txt"]
    assert chain.read("last.txt") == "one\nx\n"


def test_who_asks_for_it_gets_it_and_keeps_it(chain: Space) -> None:
    chain.build()
    chain.build("big.bin")
    assert chain.ran == ["big.bin"] and chain.path("big.bin").stat().st_size > LARGE
    chain.build()
    assert chain.ran == [] and chain.exists("big.bin")


def test_a_temporary_target_that_reads_another_is_made_from_the_beginning(space: Space) -> None:
    space.write("./x.txt", "x\n")
    space.write("./word.txt", "one\n")
    space.write(
        "script.py",
        f"""
        rule("first.bin", x="./x.txt", temp=True, run=sh("printf '%{LARGE}s' | tr ' ' $(cat {{x}}) > {{out}}"))
        rule("second.bin", first="first.bin", temp=True, run=sh("tr x z < {{first}} > {{out}}"))
        rule("end.txt", b="second.bin", word="./word.txt", run=sh("(cat {{word}}; head -c 3 {{b}}; echo) > {{out}}"))
        """,
    )
    space.build()
    assert sorted(space.files()) == ["end.txt"]
    space.write("./word.txt", "two\n")
    space.build()
    assert space.ran == ["end.txt", "first.bin", "second.bin"]
    assert space.read("end.txt") == "two\nzzz\n" and stored(space) == 0


def test_a_folder_and_a_fan_out_are_removed_as_their_readers_end(space: Space) -> None:
    space.write("./k.json", "[1, 2, 3]")
    space.write("./word.txt", "one\n")
    space.write(
        "script.py",
        f"""
        rule("parts/{{k}}/", temp=True,
             run=sh("mkdir -p {{out}}deep; printf '%{LARGE}s' | tr ' ' {{k}} > {{out}}deep/a; echo {{k}} > {{out}}b"))
        rule("one/{{k}}.txt", parts="parts/{{k}}/", run=sh("cat {{parts}}/b > {{out}}"))
        rule("two/{{k}}.txt", a="parts/{{k}}/deep/a", word="./word.txt",
             run=sh("(cat {{word}}; head -c 1 {{a}}; echo) > {{out}}"))
        rule("all.txt", one=each("one/{{k}}.txt", k="./k.json"), two=each("two/{{k}}.txt", k="./k.json"),
             run=sh("cat {{one}} {{two}} > {{out}}"))
        """,
    )
    space.build()
    assert space.read("all.txt") == "1\n2\n3\none\n1\none\n2\none\n3\n"
    assert not space.exists("parts") and stored(space) == 0
    space.build()
    assert space.ran == []
    space.write("./word.txt", "two\n")
    space.build()
    assert [name for name in space.ran if name.startswith("one")] == []
    assert [name for name in space.ran if name.startswith("parts")] == ["parts/1/", "parts/2/", "parts/3/"]
    assert not space.exists("parts")


def test_what_a_reader_that_failed_needs_stays_for_its_next_attempt(space: Space) -> None:
    space.write("./x.txt", "x\n")
    space.write(
        "script.py",
        f"""
        rule("big.bin", x="./x.txt", temp=True, run=sh("head -c {LARGE} /dev/zero > {{out}}; cat {{x}} >> {{out}}"))
        rule("bad.txt", big="big.bin", flag="./flag.txt", run=sh("grep -q good {{flag}}; tail -c 2 {{big}} > {{out}}"))
        """,
    )
    space.write("./flag.txt", "bad\n")
    space.build(code=1)
    assert space.exists("big.bin")
    space.write("./flag.txt", "good\n")
    space.build()
    assert space.ran == ["bad.txt"] and space.read("bad.txt") == "x\n"
    assert not space.exists("big.bin") and stored(space) == 0


def test_a_step_that_is_not_repeatable_gives_its_readers_what_was_made_last(space: Space) -> None:
    space.write("./word.txt", "one\n")
    space.write(
        "script.py",
        f"""
        rule("big.bin", temp=True, run=sh("(head -c {LARGE} /dev/zero; date +%s%N) > {{out}}"))
        rule("last.txt", big="big.bin", word="./word.txt", run=sh("(cat {{word}}; tail -c 20 {{big}}) > {{out}}"))
        rule("sum.txt", big="big.bin", run=sh("tail -c 20 {{big}} > {{out}}"))
        """,
    )
    space.build()
    space.write("./word.txt", "two\n")
    space.build()
    assert space.read("last.txt").splitlines()[0] == "two"
    space.build()
    assert space.read("last.txt").endswith(space.read("sum.txt"))
    assert space.ran == []


def test_a_file_that_somebody_puts_in_its_place_is_kept(chain: Space) -> None:
    chain.build()
    chain.path("big.bin").write_text("mine\n")
    done = chain.build(code=None)
    assert chain.read("big.bin") == "mine\n"
    chain.write("./word.txt", "two\n")
    done = chain.build(code=3)
    assert "big.bin was edited" in done and chain.read("big.bin") == "mine\n"


def test_a_build_that_is_killed_leaves_what_the_next_one_removes(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        rule("big.bin", temp=True, run=sh("head -c {LARGE} /dev/zero > {{out}}"))
        rule("slow.txt", big="big.bin", flag="./flag.txt", run=sh("sleep $(cat {{flag}}); wc -c < {{big}} > {{out}}"))
        """,
    )
    space.write("./flag.txt", "3600\n")
    build = space.start("build")
    wait_until(lambda: space.exists("big.bin"))
    build.kill()
    build.end(code=None)
    space.write("./flag.txt", "0\n")
    space.build()
    assert space.read("slow.txt").strip() == str(LARGE)
    assert not space.exists("big.bin") and stored(space) == 0


def test_it_goes_without_saying_in_status_why_and_clean(chain: Space) -> None:
    chain.build()
    assert "3 up to date" in chain.run("status") and "would" not in chain.last
    assert "it is temporary, and was removed" in chain.run("why", "big.bin")
    chain.run("clean", "-y", code=None)
    chain.build()
    assert sorted(chain.files()) == ["last.txt", "sum.txt"]
