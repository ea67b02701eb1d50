"""Batches: many bindings in one process, and each is a step of its own: trace, failure, log, restoring."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from space import Space, wait_until
from told import told

RULE = """
import os

rule("data/{k}.json", x="./in/{k}.txt", batch=BATCH, run=py("script.py:item"))
rule("data/all.json", xs=each("data/{k}.json", k=KEYS), run=py("script.py:collect"))

def item(x: str, k: str):
    return {"k": k, "x": x.strip(), "pid": os.getpid(), "seed": os.environ["LABMAKE_SEED"]}

def collect(xs: dict[str, dict]):
    return list(xs.values())
"""

KEYS = [f"k{number}" for number in range(6)]


def write(space: Space, text: str, batch: object = 100, keys: list[str] = KEYS) -> None:
    """A script, and its inputs."""
    space.write("script.py", text.replace("BATCH", str(batch)).replace("KEYS", repr(keys)))
    for key in keys:
        space.write(f"./in/{key}.txt", f"text of {key}\n")


def results(space: Space, keys: list[str] = KEYS) -> list[dict[str, str]]:
    return [json.loads(space.read(f"data/{key}.json")) for key in keys]


def processes(space: Space, keys: list[str] = KEYS) -> int:
    """How many processes made them."""
    return len({one["pid"] for one in results(space, keys)})


def items(keys: list[str] = KEYS) -> list[str]:
    return [f"data/{key}.json" for key in keys]


def another_worktree(space: Space) -> Space:
    space.git("add", ".")
    space.git("commit", "-qm", "first")
    space.git("worktree", "add", "-q", str(space.root.parent / "other"))
    return Space(space.root.parent / "other")


def test_items_are_made_by_one_process_and_each_is_a_step_of_its_own(space: Space) -> None:
    write(space, RULE)
    space.build("--jobs", "1", "data/all.json")
    assert space.ran == ["data/all.json", *items()]
    assert processes(space) == 1
    assert len({one["seed"] for one in results(space)}) == 6
    space.build("data/all.json")
    assert space.ran == []
    space.path("data/k3.json").unlink()
    space.build("data/all.json")
    assert space.restored == ["data/k3.json"] and space.ran == []
    other = another_worktree(space)
    other.build("data/k4.json")
    assert other.restored == ["data/k4.json"] and other.ran == []


def test_what_an_item_gets_is_what_it_gets_alone(space: Space) -> None:
    write(space, RULE)
    space.build("--jobs", "1", "data/all.json")
    together = results(space)
    write(space, RULE, batch=1)
    space.build("--jobs", "1", "data/all.json")
    assert space.ran == [] and results(space) == together  # batch= is no part of an action
    shutil.rmtree(space.root / ".git" / "labmake")
    shutil.rmtree(space.root / "generated")
    space.build("--jobs", "1", "data/all.json")
    alone = results(space)
    assert len({one["pid"] for one in alone}) == 6
    assert [{**one, "pid": ""} for one in alone] == [{**one, "pid": ""} for one in together]


def test_a_changed_item_runs_alone(space: Space) -> None:
    write(space, RULE)
    space.build("data/all.json")
    space.write("./in/k2.txt", "another\n")
    space.build("data/all.json")
    assert space.ran == ["data/all.json", "data/k2.json"]
    assert results(space, ["k2"])[0]["x"] == "another"


def test_free_slots_share_the_items_evenly(space: Space) -> None:
    write(space, RULE)
    space.build("--jobs", "2", "data/all.json")
    assert processes(space) == 2
    counts = [[one["pid"] for one in results(space)].count(pid) for pid in {one["pid"] for one in results(space)}]
    assert counts == [3, 3]


def test_a_batch_has_no_more_items_than_it_shall(space: Space) -> None:
    write(space, RULE, batch=2)
    space.build("--jobs", "1", "data/all.json")
    assert processes(space) == 3


# Failures ------------------------------------------------------------------------------------------------------------

FAILING = """
import ctypes, os, signal, sys, time

NOTES

rule("data/{k}.json", x="./in/{k}.txt", batch=BATCH, run=py("script.py:item"), OPTIONS)
rule("data/all.json", xs=each("data/{k}.json", k=KEYS, failed=None), run=py("script.py:collect"))

def item(x: str, k: str, out):
    note(k)
    print("this is", k)
    if k == "k2":
        BAD
    out.write_text('"' + x.strip() + '"')

def collect(xs: dict):
    return [k for k, x in xs.items() if x is not None]
"""

GOOD = [key for key in KEYS if key != "k2"]


def failing(space: Space, bad: str, options: str = "") -> None:
    note = f"def note(text):\n    with open({str(space.notes)!r}, 'a') as file:\n        file.write(text + '\\n')\n"
    text = FAILING.replace("NOTES", note).replace("BAD", bad).replace("OPTIONS", options)
    write(space, text)


BAD = {
    "raise": ('raise ValueError("it is two")', "ValueError: it is two"),
    "sys.exit": ("sys.exit(3)", "exit code  3"),
    "os._exit": ("os._exit(4)", "exit code  4"),
    "os._exit(0)": ("os._exit(0)", "did not write data/k2.json"),
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "kills its parent": ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", "k2"),
    "writes nothing": ("return None", "returned nothing and wrote nothing"),
    "a folder for a file": ("out.mkdir(); return", "found there  a folder"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_failed_item_is_its_own_failure(space: Space, bad: str) -> None:
    failing(space, BAD[bad][0])
    done = space.build("--jobs", "1", "data/all.json", code=1)
    assert space.json("data/all.json") == GOOD
    assert [space.exists(f"data/{key}.json") for key in KEYS] == [key != "k2" for key in KEYS]
    assert done.text.count("error: ") == 1 and "data/k2.json" in done
    assert BAD[bad][1] in done
    failures = space.run("failures", code=None).text
    assert "data/k2.json" in failures and "data/k1.json" not in failures
    assert space.run("logs", "data/k1.json").text == "this is k1\n"
    assert "this is k3" not in space.run("logs", "data/k2.json").text
    space.build("--jobs", "1", "data/all.json", code=1)
    assert space.ran == []


def test_the_process_of_an_item_that_raised_goes_on(space: Space) -> None:
    failing(space, 'raise ValueError("x")')
    space.write("script.py", space.read("script.py").replace("note(k)", "note(f'{os.getpid()} {os.getcwd()}')"))
    space.build("--jobs", "1", *items(), code=1)
    assert len(space.noted()) == 6 and len(set(space.noted())) == 1


def test_retries_are_those_of_one_item(space: Space) -> None:
    failing(space, "raise ValueError(k)", "retries=2")
    done = space.build("--jobs", "1", "data/all.json", code=1)
    assert sorted(space.noted()) == sorted([*KEYS, "k2", "k2"])
    assert "attempts" in done


def test_time_limits_one_item(space: Space) -> None:
    failing(space, "time.sleep(3600)", 'time="1s"')
    done = space.build("--jobs", "1", "data/all.json", code=1)
    assert "exceeded its time (1 s)" in done and space.json("data/all.json") == GOOD


def test_an_item_that_cannot_be_imported_fails_like_any_step(space: Space) -> None:
    failing(space, "pass")
    space.write(
        "script.py", space.read("script.py").replace("def item", "if 'LABMAKE_STEP' in os.environ: 1 / 0\n\ndef item")
    )
    done = space.build("--jobs", "1", *items(), code=1)
    assert done.text.count("ZeroDivisionError") == 6


def test_one_item_sees_nothing_of_another(space: Space) -> None:
    space.write(
        "script.py",
        """
        import os, random, sys
        from pathlib import Path
        rule("data/{k}.json", x="./in/{k}.txt", batch=9, run=py("script.py:item"))

        def item(k: str, scratch, x):
            told = [sorted(str(p) for p in Path(".").rglob("*.txt")), os.getcwd(), os.environ.get("LEFT", ""),
                    random.random(), sorted(p.name for p in scratch.iterdir()), os.environ["LABMAKE_SEED"]]
            os.environ["LEFT"] = k
            Path("left.txt").write_text("left")
            (scratch / "left").write_text("left")
            os.chdir("/")
            return told
        """,
    )
    for key in KEYS:
        space.write(f"./in/{key}.txt", key)
    done = space.build("--jobs", "1", *items())
    assert done.text.count("left.txt") == 6
    together = [space.json(name) for name in items()]
    for number, (files, _, left, _, scratch, _) in enumerate(together):  # type: ignore[misc]
        assert files == [f"in/k{number}.txt"] and left == "" and scratch == []
    shutil.rmtree(space.root / ".git" / "labmake")
    shutil.rmtree(space.root / "generated")
    space.write("script.py", space.read("script.py").replace("batch=9", "batch=1"))
    space.build("--jobs", "1", *items())
    alone = [space.json(name) for name in items()]
    assert [one[3] for one in alone] == [one[3] for one in together]  # type: ignore[index]


def test_pyplot_draws_each_item_on_a_figure_of_its_own(space: Space) -> None:
    pytest.importorskip("matplotlib")
    space.write(
        "script.py",
        """
        import matplotlib.pyplot as plt
        rule("data/{k}.json", batch=9, run=py("script.py:item"))

        def item(k: str):
            plt.plot([1, 2])
            return len(plt.gca().lines)
        """,
    )
    space.build("--jobs", "1", *items())
    assert [space.json(name) for name in items()] == [1] * 6


# Interruptions -------------------------------------------------------------------------------------------------------

WAITING = """
import os, time
from pathlib import Path

rule("data/{k}.json", x="./in/{k}.txt", batch=BATCH, run=py("script.py:item"))
rule("data/all.json", xs=each("data/{k}.json", k=KEYS), run=py("script.py:collect"))

def item(x: str, k: str):
    with open(NOTES, "a") as file:
        file.write(k + "\\n")
    while k == "k3" and not Path(GATE).exists():
        time.sleep(0.01)
    return [k]

def collect(xs: dict):
    return len(xs)
"""


def waiting(space: Space) -> Path:
    """A batch whose fourth item waits for the file that is returned."""
    gate = space.root.parent / "gate"
    write(space, WAITING.replace("NOTES", repr(str(space.notes))).replace("GATE", repr(str(gate))))
    return gate


def test_what_a_killed_build_has_finished_is_kept(space: Space) -> None:
    gate = waiting(space)
    build = space.start("build", "--jobs", "1", "data/all.json")
    wait_until(lambda: "k3" in space.noted())
    build.kill()
    gate.touch()
    space.build("--jobs", "1", "data/all.json")
    assert space.noted() == ["k0", "k1", "k2", "k3", "k3", "k4", "k5"]


def test_an_interrupt_finishes_the_item_that_runs(space: Space) -> None:
    gate = waiting(space)
    build = space.start("build", "--jobs", "1", "data/all.json")
    wait_until(lambda: "k3" in space.noted())
    build.interrupt()
    wait_until(lambda: "again to stop them now" in build.text)
    gate.touch()
    build.end(code=130)
    assert space.noted() == ["k0", "k1", "k2", "k3"]
    assert "error:" not in build.text
    space.build("--jobs", "1", "data/all.json")
    assert space.noted() == ["k0", "k1", "k2", "k3", "k4", "k5"]


def test_a_second_interrupt_stops_it(space: Space) -> None:
    gate = waiting(space)
    build = space.start("build", "--jobs", "1", "data/all.json")
    wait_until(lambda: "k3" in space.noted())
    build.interrupt()
    wait_until(lambda: "again to stop them now" in build.text)
    build.interrupt()
    build.end(code=130)
    gate.touch()
    space.build("--jobs", "1", "data/all.json")
    assert space.noted() == ["k0", "k1", "k2", "k3", "k3", "k4", "k5"]


def test_fail_fast_ends_a_batch_soon(space: Space) -> None:
    failing(space, 'raise ValueError("x")')
    script = space.read("script.py").replace("note(k)", "note(k)\n    time.sleep(3 if k == 'k3' else 0)")
    space.write("script.py", script)
    space.build("--jobs", "1", "--fail-fast", "data/all.json", code=1)
    assert space.noted()[:3] == ["k0", "k1", "k2"] and "k4" not in space.noted()


def test_two_builds_make_each_item_once(space: Space) -> None:
    gate = waiting(space)
    first = space.start("build", "--jobs", "1", "data/all.json")
    wait_until(lambda: "k3" in space.noted())
    second = space.start("build", "--jobs", "2", "data/all.json")
    wait_until(lambda: "another build makes it" in second.text)
    gate.touch()
    first.end()
    second.end()
    assert space.noted() == KEYS


def test_a_forced_item_runs_again_and_no_other(space: Space) -> None:
    waiting(space).touch()
    space.build("--jobs", "1", "data/all.json")
    space.build("--jobs", "1", "-f", "data/k1.json", "data/k2.json")
    assert space.noted() == [*KEYS, "k1", "k2"]


def test_each_item_is_told_of(space: Space) -> None:
    gate = waiting(space)
    build = space.start("build", "--jobs", "1", "--json", "data/all.json")
    wait_until(lambda: "k3" in space.noted())
    events = [json.loads(line) for line in build.text.splitlines()]
    begun = [event["name"] for event in events if event["event"] == "step-started"]
    ended = [event["name"] for event in events if event["event"] == "step-finished"]
    assert begun[:3] == items()[:3] and "data/k4.json" not in begun and ended == items()[:3]
    gate.touch()
    build.end()


# Shapes --------------------------------------------------------------------------------------------------------------


def test_items_with_folders_several_outputs_and_what_a_step_made(space: Space) -> None:
    space.write(
        "script.py",
        """
        import os
        from pathlib import Path
        rule("data/keys.json", run=py("script.py:keys"))
        rule({"table": "data/{k}/table.csv", "files": "data/{k}/files/"}, batch=50, run=py("script.py:first"))
        rule("data/{k}/next.txt", table="data/{k}/table.csv", files="data/{k}/files/", batch=50,
             run=py("script.py:second"))
        rule("data/all.json", xs=each("data/{k}/next.txt", k="data/keys.json"), run=py("script.py:collect"))

        def keys():
            return [f"k{i}" for i in range(5)]

        def first(k: str, files):
            (files / "a.txt").write_text(k)
            return {"table": [{"k": k}]}

        def second(table, files, k: str):
            return table.read_text().split()[1] + (files / "a.txt").read_text() + str(len(list(files.iterdir())))

        def collect(xs: dict[str, str]):
            return xs
        """,
    )
    space.build("--jobs", "2", "data/all.json")
    assert space.json("data/all.json") == {f"k{i}": f"k{i}k{i}1" for i in range(5)}
    shutil.rmtree(space.root / "generated")
    space.build("data/all.json")
    assert space.ran == [] and space.read("data/k3/files/a.txt") == "k3"


def test_an_item_that_is_another_ones_input(space: Space) -> None:
    space.write(
        "script.py",
        """
        @plan("data/{n:[0-9]+}.txt")
        def chain(n):
            before = {} if n == "0" else {"before": f"data/{int(n) - 1}.txt"}
            return step(run=py("script.py:item"), batch=10, **before)

        def item(n: int, before: str = ""):
            return f"{before.strip()} {n}"
        """,
    )
    space.build("--jobs", "2", *[f"data/{n}.txt" for n in range(5)])
    assert space.read("data/4.txt").split() == ["0", "1", "2", "3", "4"]


def test_a_checkpoint_is_that_of_one_item(space: Space) -> None:
    space.write(
        "script.py",
        """
        import os
        from pathlib import Path
        rule("data/{k}.json", batch=10, checkpoint=True, run=py("script.py:item"))

        def item(k: str):
            at = Path(os.environ["LABMAKE_CHECKPOINT"]) / "at"
            began = at.read_text() if at.exists() else ""
            at.write_text(k)
            if not began and k in ("k1", "k2"):
                raise ValueError(k)
            return [began]
        """,
    )
    space.build("--jobs", "1", *items(), code=1)
    space.build("--jobs", "1", *items())
    assert [space.json(name) for name in items()] == [[""], ["k1"], ["k2"], [""], [""], [""]]


def test_a_secret_is_taken_out_of_each_log(space: Space) -> None:
    space.write(
        "script.py",
        """
        import os
        rule("data/{k}.json", batch=10, secrets=["TOKEN"], run=py("script.py:item"))

        def item(k: str):
            print(k, os.environ["TOKEN"])
            return [os.getpid(), len(os.environ["TOKEN"])]
        """,
    )
    space.build("--jobs", "1", *items(), env={"TOKEN": "very-secret"})
    assert len({str(space.json(name)) for name in items()}) == 1
    assert space.run("logs", "data/k3.json").text == "k3 [secret]\n"


# Shell commands ------------------------------------------------------------------------------------------------------

TOOL = """
import csv, os, sys

lines = list(csv.DictReader(open(sys.argv[1]), delimiter="\\t", quoting=csv.QUOTE_NONE))
with open(NOTES, "a") as notes:
    notes.write(" ".join(line["k"] for line in lines) + "\\n")
for line in lines:
    print("makes", line["k"])
    BAD
    with open(line["out"], "w") as out:
        out.write(line["k"] + open(line["x"]).read().strip() + line["digits"])
    DONE
"""

SHELL = """
rule("data/{k}.txt", x="./in/{k}.txt", batch=BATCH, run=sh("python src/tool.py {batch}", digits=3), OPTIONS)
rule("data/all.txt", xs=each("data/{k}.txt", k=KEYS, failed=None), run=sh("cat {xs} > {out}"))
"""

NAMED = "open(os.environ['LABMAKE_DONE'], 'a').write(line['out'] + '\\n')"


def tool(space: Space, bad: str = "", done: str = "", options: str = "", keys: list[str] = KEYS) -> None:
    write(space, SHELL.replace("OPTIONS", options), keys=keys)
    text = TOOL.replace("NOTES", repr(str(space.notes))).replace("BAD", bad).replace("DONE", done)
    space.write("src/tool.py", text)


def test_a_command_makes_all_items_of_its_table(space: Space) -> None:
    tool(space)
    space.build("--jobs", "1", "data/all.txt")
    assert space.noted() == [" ".join(KEYS)]
    assert space.read("data/k2.txt") == "k2text of k23"
    assert space.ran == ["data/all.txt", *(f"data/{key}.txt" for key in KEYS)]
    space.path("data/k3.txt").unlink()
    space.build("data/all.txt")
    assert space.restored == ["data/k3.txt"]
    space.write("./in/k2.txt", "new\n")
    space.build("data/all.txt")
    assert space.noted() == [" ".join(KEYS), "k2"] and space.read("data/k2.txt") == "k2new3"
    other = another_worktree(space)
    other.build("data/k4.txt")
    assert other.restored == ["data/k4.txt"]
    assert space.run("logs", "data/k0.txt").text == "".join(f"makes {key}\n" for key in KEYS)


def test_the_items_that_fail_are_found_by_halves(space: Space) -> None:
    tool(space, "if line['k'] in ('k1', 'k6'): sys.exit(f\"cannot do {line['k']}\")", keys=[f"k{i}" for i in range(8)])
    done = space.build("--jobs", "1", "data/all.txt", code=1)
    assert done.text.count("error: ") == 2 and "cannot do k1" in done and "cannot do k6" in done
    assert space.read("data/all.txt").count("text") == 6
    assert space.noted()[:4] == ["k0 k1 k2 k3 k4 k5 k6 k7", "k0 k1 k2 k3", "k0 k1", "k0"]
    assert len(space.noted()) == 13 - 2
    assert "cannot do k6" in space.run("logs", "data/k6.txt").text


def test_an_item_that_is_not_written_is_a_failure_of_its_own(space: Space) -> None:
    tool(space, "if line['k'] == 'k1': continue")
    done = space.build("--jobs", "1", "data/all.txt", code=1)
    assert done.text.count("error: ") == 1 and "did not write data/k1.txt" in done
    assert space.read("data/all.txt").count("text") == 5


def test_what_is_named_as_done_is_kept(space: Space) -> None:
    tool(space, "if line['k'] == 'k4': sys.exit(1)", NAMED)
    space.build("--jobs", "1", "data/all.txt", code=1)
    assert space.noted() == [" ".join(KEYS), "k4", "k5"]
    assert space.read("data/all.txt").count("text") == 5


@pytest.mark.parametrize("end", ["kill", "interrupt"])
def test_what_is_named_as_done_survives_the_build(space: Space, end: str) -> None:
    gate, reached = space.root.parent / "gate", space.root.parent / "reached"
    wait = f"while not os.path.exists({str(gate)!r}): open({str(reached)!r}, 'w')"
    tool(space, f"if line['k'] == 'k4':\n        {wait}", NAMED)
    build = space.start("build", "--jobs", "1", "data/all.txt")
    wait_until(reached.exists)
    if end == "kill":
        build.kill()
    else:
        build.interrupt()
        wait_until(lambda: "again to stop them now" in build.text)
        build.interrupt()
        build.end(code=130)
    gate.touch()
    space.build("--jobs", "1", "data/all.txt")
    assert space.noted() == [" ".join(KEYS), "k4 k5"]


def test_the_log_of_each_item_can_be_followed_while_the_command_runs(space: Space) -> None:
    gate = space.root.parent / "gate"
    tool(space, f"while line['k'] == 'k4' and not os.path.exists({str(gate)!r}): pass")
    build = space.start("build", "--jobs", "1", "data/all.txt")
    wait_until(lambda: [file for file in space.root.glob(".git/labmake/steps/*/*/job") if file.stat().st_size])
    log = space.start("logs", "-f", "data/k5.txt")
    wait_until(lambda: "makes k4" in log.text)
    gate.touch()
    build.end()
    assert log.end().text == "".join(f"makes {key}\n" for key in KEYS)


def test_results_of_one_name_in_two_experiments_do_not_meet_in_one_folder(space: Space) -> None:
    tool(space)
    text = space.read("src/tool.py")
    other = Space(space.root, "2026-01-03-Other")
    (space.root / "scripts" / other.experiment).mkdir()
    space.write(
        "rules.py",
        'rule("generated/{exp}/assets/data/{k}.txt", x="/scripts/{exp}/in/{k}.txt", batch=100,\n'
        '     run=sh("python src/tool.py {batch}", digits=3))\n',
    )
    space.write("src/tool.py", text)
    space.write("script.py", "")
    other.write("script.py", "")
    for key in KEYS[:3]:
        space.write(f"./in/{key}.txt", f"one of {key}")
        other.write(f"./in/{key}.txt", f"two of {key}")
    names = [f"generated/{one.experiment}/assets/data/{key}.txt" for one in (space, other) for key in KEYS[:3]]
    space.build("--jobs", "1", *names)
    assert [space.read(f"data/{key}.txt") for key in KEYS[:3]] == [f"{key}one of {key}3" for key in KEYS[:3]]
    assert [other.read(f"data/{key}.txt") for key in KEYS[:3]] == [f"{key}two of {key}3" for key in KEYS[:3]]
    assert space.noted() == ["k0 k1 k2", "k0 k1 k2"]


def test_items_are_checked_one_by_one(space: Space) -> None:
    tool(space)
    space.build("--jobs", "1", "data/all.txt")
    space.run("check", "data/k1.txt")
    assert set(space.noted()[1:]) == {"k1"}


def test_a_list_is_a_file(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("data/{k}.txt", parts=["./in/{k}.txt", "./common.txt"], common="./common.txt", batch=10,
             run=sh('''tail -n +2 {batch} | while IFS=$'\\t' read -r k parts common out seed; do
                 xargs cat < "$parts" > "$out"; cat {common} >> "$out"; done'''))
        """,
    )
    space.write("./common.txt", "c")
    for key in KEYS:
        space.write(f"./in/{key}.txt", key)
    space.build("--jobs", "1", *[f"data/{key}.txt" for key in KEYS])
    assert space.read("data/k3.txt") == "k3cc"


def test_time_of_a_command_is_that_of_its_items(space: Space) -> None:
    tool(space, "if line['k'] == 'k1': __import__('time').sleep(3600)", options='time="1s"', keys=["k0", "k1"])
    done = space.build("--jobs", "1", "data/all.txt", code=1)
    assert "exceeded its time (1 s)" in done and space.read("data/all.txt").count("text") == 1


# Mistakes ------------------------------------------------------------------------------------------------------------

MISTAKES = {
    'rule("data/{k}.txt", batch=5, run=py("script.py"))': ["batch= needs a Python function", "a Python script"],
    'rule("data/{k}.txt", batch=5, run=r("a.R"))': ["batch= needs a Python function", "a script"],
    'rule("data/{k}.txt", batch=5, run=sh("echo > {out}"))': ["does not ask for {batch}", "a line for each item"],
    'rule("data/{k}.txt", run=sh("cat {batch} > {out}"))': ["asks for {batch}", "batch=500"],
    'rule("data/{k}.txt", batch=5, run=sh("cat {batch} > {out}"))': ["asks for {out}", "the column out"],
    'rule("data/{k}.txt", batch=5, run=sh("x {batch} {k}"))': ["asks for {k}"],
    'rule("data/{k}.txt", x="./{k}.txt", batch=5, run=sh("x {batch} {x}"))': ["asks for {x}"],
    'rule("data/{batch}.txt", batch=5, run=sh("x {batch}"))': ["is the name of a wildcard"],
    'rule("data/{k}.txt", batch=5, checkpoint=True, run=sh("x {batch}"))': ["has no checkpoint", "LABMAKE_DONE"],
    'rule("data/{k}.txt", batch=0, run=sh("x {batch}"))': ["batch= takes a number, 1 or more"],
    'rule("data/{k}.txt", batch="all", run=sh("x {batch}"))': ["batch= takes a number"],
    'rule("data/{k}.txt", batch=True, run=sh("x {batch}"))': ["batch= takes a number"],
    'rule("data/{k}.txt", batch=5, text="./a\\tb.txt", run=sh("touch $(tail -n1 {batch} | cut -f3)"))': [
        "no place for tabs"
    ],
}


@pytest.mark.parametrize("rule", MISTAKES)
def test_a_mistake_is_told(space: Space, rule: str) -> None:
    space.write("script.py", rule + "\n")
    space.write("./a.R", "")
    space.write("./a\tb.txt", "")
    error = told(space, *MISTAKES[rule], code=None, command=("build", "data/a.txt"))  # type: ignore[arg-type]
    assert re.search(r"script\.py", error)


def test_a_wildcard_may_be_called_batch(space: Space) -> None:
    space.write("script.py", 'rule("data/{batch}.txt", run=sh("echo {batch} > {out}"))')
    space.build("data/7.txt")
    assert space.read("data/7.txt") == "7\n"


def test_a_batch_of_one_is_no_error(space: Space) -> None:
    space.write(
        "script.py",
        'rule("data/a.json", batch=5, run=py("script.py:f"))\n'
        'rule("data/{k}.txt", batch=1, run=sh("cut -f1 {batch} | tail -n 1 > data/a.txt"))\n'
        "def f():\n    return 1\n",
    )
    space.build("data/a.json", "data/a.txt")
    assert space.read("data/a.txt") == "a\n"
