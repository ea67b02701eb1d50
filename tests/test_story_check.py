"""Checking steps: they run twice, apart from all results, and what differs is named with its cause."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from space import Space, wait_until


def check(space: Space, *words: str, code: int = 1, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """What a check finds, by short name."""
    done = space.run("check", "--json", *words, code=code, env=env)
    events = [json.loads(line) for line in done.text.splitlines() if line.startswith('{"event"')]
    assert events[-1]["event"] == "summary" and events[-1]["exit"] == code
    return {event["name"]: event for event in events if event["event"] == "checked"}


def state(space: Space) -> dict[str, bytes]:
    """Everything that a check must leave as it is: generated files, segments of the store, facts."""
    found = {str(path): path.read_bytes() for path in sorted((space.root / "generated").rglob("*")) if path.is_file()}
    (database,) = (space.root / ".git/labmake/state").glob("*.db")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found["facts"] = repr(connection.execute("select * from facts order by 1").fetchall()).encode()
    return found


def traces(space: Space) -> int:
    """How many traces the store has."""
    segments = (space.root / ".git/labmake/store").rglob("*")
    return sum(path.read_bytes().count(b'"seconds":') for path in segments if path.is_file())


SHELL = """
    rule("data/good.txt", raw="./raw.txt", run=sh("sort {raw} > {out}"))
    rule("data/date.txt", raw="./raw.txt", run=sh("cat {raw} > {out}; date >> {out}"))
    rule("data/path.txt", raw="./raw.txt", run=sh("echo $PWD/{raw} > {out}"))
    rule("data/mode.txt", raw="./raw.txt", run=sh("touch x; stat -c %a x > {out}"))
    rule("data/raw.gz", raw="./raw.txt", run=sh("cp {raw} x; gzip -c x > {out}"))
    rule("data/raw.tar", raw="./raw.txt", run=sh("cat {raw} > x; tar --mtime=@0 -cf {out} x"))
    rule("data/random.txt", raw="./raw.txt", run=sh("head -c 600 /dev/urandom > {out}"))
    rule({"left": "data/left.txt", "right": "data/right/"}, raw="./raw.txt",
         run=sh("cp {raw} {left}; mkdir -p {right}/sub; cp {raw} {right}/a; date +%s.%N > {right}/sub/when"))
    """


def test_what_differs_between_two_runs_of_a_command_is_named_with_its_cause_and_nothing_is_recorded(
    space: Space,
) -> None:
    space.write("script.py", SHELL)
    space.write("./raw.txt", "b\na\n")
    space.build()
    before, count = state(space), traces(space)
    found = check(space)
    assert {name: event["causes"] for name, event in found.items()} == {
        "data/good.txt": [],
        "data/date.txt": ["time stamp"],
        "data/path.txt": ["absolute path"],
        "data/mode.txt": ["umask"],
        "data/raw.gz": ["time stamp"],
        "data/raw.tar": ["umask"],
        "data/random.txt": ["time, random numbers or threads"],
        "data/left.txt": ["time stamp"],
    }
    assert found["data/good.txt"]["result"] == "same" and found["data/good.txt"]["recorded"] == "same"
    (difference,) = found["data/date.txt"]["differences"]
    assert difference["place"] == "data/date.txt" and difference["what"] == "line 3 of 3 differs"
    assert [line[:2] for line in difference["lines"]] == ["- ", "+ "]
    (difference,) = found["data/raw.gz"]["differences"]
    assert difference["place"] == "data/raw.gz: time in the header"
    (difference,) = found["data/left.txt"]["differences"]
    assert difference["place"] == "data/right/sub/when"
    assert found["data/random.txt"]["differences"][0]["what"].startswith("differs from byte 0 on")
    assert state(space) == before and traces(space) == count
    assert not list((space.root / ".git/labmake/steps").iterdir())
    told = space.run("check", "data/date.txt", code=1)
    assert "differs   data/date.txt" in told and "script.py:4" in told and "likely cause: time stamp" in told
    assert "1 differ (" in told


PYTHON = """
    import json, os, random, tempfile, time
    from pathlib import Path

    @rule("data/set.json", raw="./raw.txt")
    def words(raw: str):
        return list(set(raw.split()))

    @rule("data/set.pkl", raw="./raw.txt")
    def pickled(raw: str, out):
        import pickle
        out.write_bytes(pickle.dumps(set(raw.split())))

    @rule("data/random.json", raw="./raw.txt")
    def unseeded(raw: str):
        return [random.SystemRandom().random() for _ in range(3)]

    @rule("data/seeded.json", raw="./raw.txt")
    def seeded(raw: str):
        return [random.random() for _ in range(3)]

    @rule("data/address.txt", raw="./raw.txt")
    def address(raw: str):
        return repr(object())

    @rule("data/hidden.txt", raw="./raw.txt")
    def hidden(raw: str):
        import hashlib
        return hashlib.sha256(os.getcwd().encode()).hexdigest()

    @rule("data/threads.json", raw="./raw.txt", cpus=2)
    def threads(raw: str):
        return {"sum": 1 + 1e-12 * int(os.environ["OMP_NUM_THREADS"])}

    @rule("data/close.json", raw="./raw.txt", cpus=2, compare="numbers 1e-9")
    def close(raw: str):
        return {"sum": 1 + 1e-12 * int(os.environ["OMP_NUM_THREADS"])}

    @rule("data/archive.zip", raw="./raw.txt")
    def archive(raw: str, out):
        import zipfile
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("raw.txt", raw)
    """


def test_what_differs_between_two_runs_of_a_function_is_named_with_its_cause(space: Space) -> None:
    space.write("script.py", PYTHON)
    space.write("./raw.txt", "some words that are put into a set in any order")
    space.build()
    found = check(space)
    assert {name: event["causes"] for name, event in found.items()} == {
        "data/set.json": ["order of a set"],
        "data/set.pkl": ["order of a set"],
        "data/random.json": ["random numbers"],
        "data/seeded.json": [],
        "data/address.txt": ["memory address"],
        "data/hidden.txt": ["absolute path"],
        "data/threads.json": ["threads"],
        "data/close.json": [],
        "data/archive.zip": ["time stamp"],
    }
    assert found["data/close.json"]["result"] == "same"
    assert found["data/archive.zip"]["differences"][0]["place"] == "data/archive.zip: date of raw.txt"


def test_an_r_step_is_checked_as_any_other(space: Space) -> None:
    assert shutil.which("Rscript"), "Rscript is needed: an R step is a part of what is promised"
    space.write("script.py", 'rule("data/fit.txt", raw="./raw.txt", run=r("src/fit.R"))')
    space.write("src/fit.R", 'writeLines(c("fit", format(Sys.time(), "%H:%M:%OS3")), "data/fit.txt")\n')
    space.write("./raw.txt", "1\n")
    space.build()
    found = check(space)
    assert found["data/fit.txt"]["causes"] == ["time stamp"]
    assert found["data/fit.txt"]["unused"] == ["raw (raw.txt)"]


def test_reads_writes_and_connections_out_of_the_step_folder_are_told_and_inputs_that_are_never_opened(
    space: Space,
) -> None:
    assert shutil.which("strace"), "strace is needed: undeclared inputs are found by it"
    elsewhere = space.root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "table with ü.csv").write_text("1\n")
    space.write("/notes.txt", "of the project\n")
    space.write("./raw.txt", "1\n")
    space.write("./spare.txt", "2\n")
    space.write("./tool.sh", "cat\n")
    space.write(
        "script.py",
        f"""
        rule("data/x.txt", raw="./raw.txt", spare="./spare.txt", many=["./raw.txt", "./spare.txt"], run=sh('''
            cat {{raw}} > {{out}}
            cat '{elsewhere}/table with ü.csv' {space.root}/notes.txt > /dev/null
            ls {elsewhere} > /dev/null
            echo noted > {elsewhere}/log; cat {elsewhere}/log > /dev/null; echo x > $TMPDIR/mine
            (exec 3<> /dev/udp/192.0.2.1/9) || true
            '''))
        rule("data/good.txt", raw="./raw.txt", run=sh("bash tool.sh < {{raw}} > {{out}}"), code=["./tool.sh"])

        @rule("data/python.txt", raw="./raw.txt")
        def python(raw: str):
            import numpy
            return str(numpy.loadtxt(__import__("io").StringIO(raw)))
        """,
    )
    space.build()
    found = check(space, code=0)
    strays = found["data/x.txt"]
    assert strays["result"] == "same" and strays["looked"]
    assert strays["read"] == [f"{elsewhere}/table with ü.csv", "notes.txt"]
    assert strays["listed"] == [str(elsewhere)] and strays["wrote"] == [f"{elsewhere}/log"]
    assert strays["connected"] == ["192.0.2.1:9"]
    assert strays["unused"] == ["spare (spare.txt)", "1 of 2 files of many, such as spare.txt"]
    for name in ("data/good.txt", "data/python.txt"):
        assert not any(found[name][kind] for kind in ("read", "listed", "wrote", "connected", "unused")), found[name]
    told = space.run("check", "data/x.txt")
    assert "read outside of its folder" in told and "script.py:3" in told and "make it a source" in told
    assert "1 the same, 1 strayed out of the step folder" in told


def test_without_strace_it_says_what_it_does_not_look_for(space: Space, tmp_path: Path) -> None:
    space.write("./raw.txt", "1\n")
    space.write("script.py", 'rule("data/x.txt", raw="./raw.txt", run=sh("cat {raw} > {out}; cat /etc/hostname"))')
    space.build()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "cat", "git"):
        (tools / name).symlink_to(str(shutil.which(name)))
    path = {"PATH": str(tools)}
    assert not check(space, "x.txt", code=0, env=path)["data/x.txt"]["looked"]
    assert "are not looked for: strace is not installed" in space.run("check", "x.txt", env=path)
    (tools / "strace").write_text("#!/bin/sh\necho 'strace: ptrace: Operation not permitted' >&2\nexit 1\n")
    (tools / "strace").chmod(0o755)
    assert "strace may not look at processes here (strace: ptrace" in space.run("check", "x.txt", env=path)


def test_two_equal_runs_are_compared_with_what_was_recorded(space: Space) -> None:
    outside = space.root.parent / "outside.txt"
    outside.write_text("one\n")
    space.write("./raw.txt", "1\n")
    space.write("script.py", f'rule("data/x.txt", raw="./raw.txt", run=sh("cat {{raw}} {outside} > {{out}}"))')
    space.build()
    outside.write_text("two\n")
    found = check(space, "x.txt")["data/x.txt"]
    assert found["result"] == "differs" and found["recorded"] == "differs" and not found["differences"]
    assert found["from_recorded"][0]["lines"] == ["- one", "+ two"]
    assert found["causes"] == ["undeclared input"]
    assert "both runs are the same, but not what was recorded on" in space.run("check", "x.txt", code=1)
    assert space.read("data/x.txt") == "1\none\n"
    assert "up to date" in space.build("x.txt")
    space.build("-f", "x.txt")
    assert check(space, "x.txt", code=0)["data/x.txt"]["recorded"] == "same"


def test_a_step_without_a_trace_is_checked_and_its_inputs_are_made_first(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write(
        "script.py",
        """
        rule("data/a.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))
        rule("data/b.txt", a="data/a.txt", run=sh("cat {a} > {out}"))
        rule("data/bad.txt", raw="./raw.txt", run=sh("exit 3"), default=False)
        rule("data/after.txt", bad="data/bad.txt", run=sh("cat {bad} > {out}"), default=False)
        """,
    )
    told = space.run("check", "b.txt")
    assert "they are made first" in told and "made      data/a.txt" in told and "same      data/b.txt" in told
    assert space.exists("data/a.txt") and not space.exists("data/b.txt")
    assert check(space, "b.txt", code=0)["data/b.txt"]["recorded"] is None
    space.build("b.txt")
    assert space.ran == ["data/b.txt"]
    told = space.run("check", "after.txt", code=1)
    assert "data/bad.txt: the step failed" in told and "nothing to check" in told
    assert "nothing failed" not in space.run("failures")


def test_a_step_that_fails_in_one_of_its_runs_is_told_so(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write(
        "script.py",
        """
        rule("data/x.txt", raw="./raw.txt",
             run=sh("cat {raw} > {out}; test $(umask) = 0022 || { echo too tight; exit 3; }"))
        rule("data/y.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))
        rule("data/z.txt", raw="./raw.txt", run=sh("exit 5"))
        rule("data/gpu.txt", raw="./raw.txt", gpus=100, run=sh("cp {raw} {out}"))
        """,
    )
    space.run("check", "x.txt", "y.txt", "z.txt", "gpu.txt", code=1)
    told = space.last
    assert "data/x.txt: the step failed in its second run, and succeeded in its first" in told and "too tight" in told
    assert "same      data/y.txt" in told
    assert "data/z.txt: the step failed\n" in told and "exit code  5" in told
    assert "asks for more gpus than this machine has" in told
    assert "nothing failed" in space.run("failures")


def test_what_takes_longer_than_the_budget_or_is_not_up_to_date_is_left_out_and_said(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write("./other.txt", "1\n")
    space.write(
        "script.py",
        """
        rule("data/quick.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))
        rule("data/slow.txt", raw="./raw.txt", run=sh("sleep 3; cat {raw} > {out}"))
        rule("data/old.txt", other="./other.txt", run=sh("cat {other} > {out}"))
        """,
    )
    space.build()
    space.write("./other.txt", "2\n")
    told = space.run("check", "--budget", "4s", "-j", "1")
    assert "same      data/quick.txt" in told
    assert "left out  data/slow.txt (3 s): it would take longer than the budget" in told
    assert "left out  data/old.txt: it is not up to date" in told
    assert "1 the same, 2 left out" in told
    assert "no time" in space.run("check", "--budget", "soon", code=2)


def test_rules_that_nothing_asks_for_are_named(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write("./used.txt", "1\n")
    space.write("./spare.txt", "1\n")
    space.write(
        "script.py",
        """
        source("data/used.txt", "./used.txt")
        source("data/spare.txt", "./spare.txt")
        rule("data/part/{n}.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))
        rule("data/lost/{n}.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))
        rule("data/idle.txt", raw="./raw.txt", temp=True, run=sh("cat {raw} > {out}"))
        rule("data/asked/{n}.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"), default=False)
        rule("data/x.txt", parts=each("data/part/{n}.txt", n=[1, 2]), used="data/used.txt",
             run=sh("cat {parts} {used} > {out}"))
        """,
    )
    space.build()
    told = space.run("check")
    assert "unasked   data/lost/{n}.txt: no target of a build without targets matches it" in told
    assert "unasked   data/spare.txt: nothing reads this source" in told
    assert "unasked   data/idle.txt: nothing of a build without targets needs it" in told
    assert told.text.count("unasked") == 3
    assert "same      data/part/1.txt" in told and "3 the same" in told


def test_words_that_cannot_be_checked_are_told_in_three_parts(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write(
        "script.py",
        """
        source("data/in.txt", "./raw.txt")
        rule("data/x.txt", raw="data/in.txt", run=sh("cat {raw} > {out}"))
        """,
    )
    assert "no rule makes nothing" in space.run("check", "nothing", code=2)
    assert "is a source: no step makes it" in space.run("check", "in.txt", code=2)
    assert "is a source file: nothing makes it" in space.run("check", "scripts/2026-01-02-Story/raw.txt", code=2)
    done = space.run("check", "--json", "nothing", code=2)
    events = [json.loads(line) for line in done.text.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events] == ["check-started", "failed", "summary"]
    space.write("script.py", 'rule("data/x.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"), compare="roughly")')
    assert "compare= takes" in space.run("check", "x.txt", code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_check_that_is_interrupted_leaves_nothing_that_lasts(space: Space, number: int) -> None:
    space.write("./raw.txt", "1\n")
    space.write("script.py", f'rule("data/x.txt", raw="./raw.txt", run=sh("echo $$ >> {space.notes}; sleep 600"))')
    running = space.start("check", "x.txt")
    wait_until(lambda: space.noted())
    running.signal(number)
    running.end(130 if number == signal.SIGINT else -number)
    wait_until(lambda: not os.path.exists(f"/proc/{space.noted()[0]}"))
    assert "Traceback" not in running.text
    steps = space.root / ".git/labmake/steps"
    if number == signal.SIGINT:
        assert "interrupted" in running.text and not list(steps.iterdir())
    space.write("script.py", 'rule("data/x.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))')
    space.build()
    assert space.ran == ["data/x.txt"] and not list(steps.iterdir())


def test_compare_is_no_part_of_an_action(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    rule = 'rule("data/x.json", raw="./raw.txt", run=sh("cat {raw} > {out}")'
    space.write("script.py", f"{rule})")
    space.build()
    space.write("script.py", f'{rule}, compare="numbers 1e-6")')
    space.build()
    assert space.ran == []


def test_pictures_are_compared_by_their_pixels(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write(
        "script.py",
        """
        import os, time

        def picture(raw: str, out):
            from PIL import Image
            from PIL.PngImagePlugin import PngInfo
            note = PngInfo()
            note.add_text("Creation Time", str(time.time()))
            Image.new("RGB", (4, 4), (1, 2, 3)).save(out, pnginfo=note)

        rule("figures/a.png", raw="./raw.txt", run=py("script.py:picture"), compare="pixels")
        rule("figures/b.png", raw="./raw.txt", run=py("script.py:picture"))
        """,
    )
    space.build()
    found = check(space)
    assert found["figures/a.png"]["result"] == "same" and found["figures/a.png"]["recorded"] == "same"
    assert found["figures/b.png"]["differences"][0]["place"] == "figures/b.png: text Creation Time"
    assert found["figures/b.png"]["causes"] == ["time stamp"]


def test_checkpoints_temporary_inputs_secrets_and_wrappers_are_those_of_the_run(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write(
        "script.py",
        """
        rule("data/counted.txt", raw="./raw.txt", checkpoint=True,
             run=sh("echo x >> $LABMAKE_CHECKPOINT/n; wc -l < $LABMAKE_CHECKPOINT/n > {out}; cat {raw} > /dev/null"))
        rule("data/big.txt", raw="./raw.txt", temp=True, run=sh("cat {raw} > {out}; seq 100000 >> {out}"))
        rule("data/small.txt", big="data/big.txt", run=sh("wc -l < {big} > {out}"))
        rule("data/wrapped.txt", raw="./raw.txt", wrap="env MODE=x", run=sh("cat {raw} > {out}; echo $MODE >> {out}"))
        rule("data/secret.txt", raw="./raw.txt", secrets=["TOKEN"], default=False,
             run=sh("cat {raw} > {out}; test $(umask) = 0022 || { echo \\"$TOKEN\\"; exit 3; }"))
        """,
    )
    space.build()
    assert not space.exists("data/big.txt")
    found = check(space, "counted.txt", "wrapped.txt", code=0)
    assert found["data/counted.txt"]["result"] == "same" and found["data/wrapped.txt"]["recorded"] == "same"
    assert not any((space.root / ".git/labmake").glob("checkpoints/*"))
    told = space.run("check", "small.txt")
    assert "they are made first" in told and "same      data/small.txt" in told
    told = space.run("check", "secret.txt", code=1, env={"TOKEN": "hunter2"})
    assert "in its second run" in told and "[secret]" in told and "hunter2" not in told


def test_a_folder_that_holds_a_link_and_an_empty_folder_and_a_dark_name_is_checked(space: Space) -> None:
    space.write("./raw.txt", "1\n")
    space.write(
        "script.py",
        """
        rule("data/many/", raw="./raw.txt", run=sh(\"\"\"
            cp {raw} {out}/'a b ü'; ln -s 'a b ü' {out}/link; mkdir {out}/empty; echo $PWD > {out}/where
            \"\"\"))
        """,
    )
    space.build()
    (difference,) = check(space)["data/many/"]["differences"]
    assert difference["place"] == "data/many/where" and difference["causes"] == ["absolute path"]
