"""Progress on a terminal and elsewhere, events, prices, and what a dry run foresees."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space import Space, wait_until
from terminal import Terminal

from labmake.cli.progress import Progress
from labmake.cli.screen import clip, drawing, width
from labmake.cli.units import about
from labmake.engine.times import wall_clock
from labmake.executors.resources import Request


def waiting(space: Space, output: str = "a.txt", name: str = "first", more: str = "") -> Path:
    """Write a rule whose step waits for a file; returns that file."""
    gate = space.root.parent / f"go-{name}"
    space.write(
        "script.py",
        f"""
        rule("{output}", run=sh("until [ -e {gate} ]; do sleep 0.02; done; echo 1 > {{out}}"))
        {more}
        """,
    )
    return gate


def fan_out(space: Space, count: int, seconds: float = 0.0) -> None:
    """Write rules with a number of targets that is known once one of them is there."""
    space.write("./count.txt", f"{count}\n")
    space.write(
        "script.py",
        f"""
        rule("folds.json", count="./count.txt", run=sh("seq $(cat {{count}}) | paste -sd, | sed 's/.*/[&]/' > {{out}}"))
        rule("fits/{{fold}}.txt", one="folds.json#{{fold}}", run=sh("sleep {seconds}; cat {{one}} > {{out}}"))
        rule("all.txt", fits=each("fits/{{fold}}.txt", fold="folds.json"), run=sh("cat {{fits}} > {{out}}"))
        """,
    )


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Live ---------------------------------------------------------------------------------------------------------------


def test_a_terminal_shows_what_runs_and_what_is_left_and_nothing_of_it_stays(space: Space) -> None:
    gate = waiting(space, more='rule("b.txt", a="a.txt", run=sh("cat {a} > {out}"))')
    terminal = Terminal(space, "build")
    terminal.until(lambda text: re.search(r"\d s  a\.txt$", text, re.MULTILINE) and "2 left" in text)
    terminal.until(lambda text: re.search(r"[1-9]\d* s  a\.txt$", text, re.MULTILINE))
    gate.touch()
    lines = terminal.end()
    assert re.fullmatch(r"made      a\.txt  \d+\.\d s\nmade      b\.txt  \d+\.\d s\n2 made \(.* s\)", "\n".join(lines))


def test_the_time_that_remains_is_told_from_measured_times(space: Space) -> None:
    gate = waiting(space)
    terminal = Terminal(space, "build")
    terminal.until(lambda text: re.search(r"([2-9]|\d\d) s  a\.txt", text))
    gate.touch()
    terminal.end()
    gate.unlink()
    terminal = Terminal(space, "build", "-f", "a.txt")
    terminal.until(lambda text: re.search(r"1 left, about \d[\d.]* s", text))
    gate.touch()
    terminal.end()


def test_a_narrow_terminal_that_is_resized_shows_whole_lines_and_no_debris(space: Space) -> None:
    gate = waiting(space, output="数据/ein-sehr-langer-name-für-ein-ergebnis-日本語.txt")
    terminal = Terminal(space, "build", columns=24)
    terminal.until(lambda text: "数 据" in text or "数据" in text)
    assert any("…" in line for line in terminal.lines)
    terminal.resize(90, 60)
    terminal.until(lambda text: "txt" in text)
    terminal.resize(11, 5)
    terminal.until(lambda text: "…" in text)
    terminal.resize(90, 60)
    gate.touch()
    lines = terminal.end()
    assert len(lines) == 2 and lines[0].startswith("made      ") and lines[1].startswith("1 made ("), lines


@pytest.mark.parametrize("columns", [9, 24, 80, 200])
def test_live_lines_fit_every_width(space: Space, columns: int) -> None:
    gate = waiting(space, output="{n}-with-a-rather-long-name-for-a-result.txt", more=THREE)
    terminal = Terminal(space, "build", "-j", "3", "all", columns=columns)
    terminal.until(lambda text: len(text.splitlines()) == 4)
    *steps, counts = terminal.lines
    assert all(re.match(r" +\d+ s", line) for line in steps if columns > 9), terminal.text
    shown = ["3 left" in counts, *("name-for-a-result.txt" in line for line in steps)]
    assert all(shown) if columns > 60 else all("…" in line for line in steps)
    gate.touch()
    lines = "".join(line.ljust(columns) for line in terminal.end())
    assert lines.count("-with-a-rather-long-name-for-a-result.txt") == 3 and "3 made (" in lines


THREE = 'group("all", *[f"{n}-with-a-rather-long-name-for-a-result.txt" for n in range(3)])'


def test_events_on_a_terminal_are_lines_of_json_and_nothing_is_asked(space: Space) -> None:
    slow(space)
    space.build()
    slow(space, " * 2")
    terminal = Terminal(space, "build", "--json", "--budget", "0.1s", columns=1000)
    told = events("\n".join(terminal.end()))
    assert [event["event"] for event in told][:2] == ["build-started", "price"] and told[-1]["made"] == 5
    assert b"\x1b" not in terminal.raw


def test_who_waits_for_another_build_sees_for_whom(space: Space) -> None:
    gate = waiting(space)
    first = space.start("build")
    wait_until(lambda: list((space.root / ".git" / "labmake" / "leases").glob("*")))
    terminal = Terminal(space, "build")
    terminal.until(lambda text: re.search(r"^waiting   a\.txt: another build makes it", text, re.MULTILINE))
    gate.touch()
    first.end(0)
    assert terminal.end()[1:2] == ["restored  a.txt"] or terminal.lines[-1].startswith("up to date: 1 target")


def test_more_steps_than_a_low_terminal_has_rows_are_counted(space: Space) -> None:
    gate = waiting(space, output="{n}.txt", more='group("all", *[f"{n}.txt" for n in range(6)])')
    terminal = Terminal(space, "build", "-j", "6", "all", rows=6)
    terminal.until(lambda text: "and 4 more" in text and "6 left" in text)
    assert len(terminal.lines) == 4
    gate.touch()
    assert terminal.end()[-1].startswith("6 made")


def test_ctrl_c_leaves_nothing_of_the_live_lines(space: Space) -> None:
    gate = waiting(space, more='rule("b.txt", a="a.txt", run=sh("cat {a} > {out}"))')
    terminal = Terminal(space, "build")
    terminal.until(lambda text: "a.txt" in text)
    terminal.type("\x03")
    terminal.until(lambda text: "interrupted: running steps are finished" in text)
    gate.touch()
    lines = terminal.end(code=130)
    expected = ["interrupted: running steps are finished", "made      a.txt  ", "interrupted: 1 made ("]
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


def test_ctrl_c_twice_stops_at_once_and_leaves_nothing_of_the_live_lines(space: Space) -> None:
    waiting(space)
    terminal = Terminal(space, "build")
    terminal.until(lambda text: "a.txt" in text)
    terminal.type("\x03")
    terminal.until(lambda text: "interrupted: " in text)
    terminal.type("\x03")
    lines = terminal.end(code=130)
    assert len(lines) == 2 and lines[1].startswith("interrupted: nothing made"), lines


def test_a_dumb_terminal_gets_plain_lines(space: Space) -> None:
    space.write("script.py", """rule("a.txt", run=sh("echo 1 > {out}"))""")
    terminal = Terminal(space, "build", TERM="dumb")
    assert terminal.end()[0].startswith("made      a.txt  ")
    assert b"\x1b" not in terminal.raw


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
def test_only_the_word_error_is_coloured_and_not_with_no_color(space: Space, env: dict[str, str]) -> None:
    space.write("script.py", """rule("a.txt", run=sh("exit 3"))""")
    terminal = Terminal(space, "build", **env)
    assert "error: " in "\n".join(terminal.end(code=1))
    coloured = re.findall(rb"\x1b\[[\d;]*m([^\x1b]*)\x1b\[0m", terminal.raw)
    assert coloured == ([] if env else [b"error:"])


def test_a_burst_of_restored_targets_is_one_line_on_a_terminal_and_all_lines_elsewhere(space: Space) -> None:
    fan_out(space, 37)
    space.build()
    shutil.rmtree(space.path("fits"))
    *lines, last = Terminal(space, "build").end()
    counts = [re.fullmatch(r"restored  (\d+) targets \(fits/\d+\.txt … fits/\d+\.txt\)", line) for line in lines]
    assert sum(int(found[1]) for found in counts if found) == 37 and len(lines) < 5, lines
    assert last.startswith("37 from the store, 2 unchanged")
    shutil.rmtree(space.path("fits"))
    space.build()
    assert space.restored == sorted(f"fits/{n}.txt" for n in range(1, 38))


def test_quiet_draws_nothing_on_a_terminal(space: Space) -> None:
    gate = waiting(space)
    gate.touch()
    terminal = Terminal(space, "build", "-q")
    assert len(terminal.end()) == 1 and b"\x1b" not in terminal.raw


WORDS = st.text("ab 日本\u00e9e\u0301", max_size=30)


@given(WORDS, st.integers(1, 40))
def test_a_clipped_text_is_never_wider_than_asked(text: str, columns: int) -> None:
    clipped = clip(text, columns)
    assert width(clipped) <= columns
    assert clipped == text or (clipped.endswith("…") and text.startswith(clipped[:-1]) and width(text) > columns)


SAID = st.lists(st.text("ab日é", min_size=1, max_size=19), max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(SAID, st.lists(WORDS, max_size=4)), max_size=8))
def test_what_is_said_stays_and_regions_go_whatever_is_drawn(frames: list[tuple[list[str], list[str]]]) -> None:
    screen = pyte.Screen(20, 40)
    screen.set_mode(pyte.modes.LNM)
    stream = pyte.Stream(screen)
    said: list[str] = []
    for lines, region in frames:
        stream.feed(drawing([clip(line, 20) for line in lines], [clip(f" {line}", 19) for line in region]))
        said += [clip(line, 20) for line in lines]
    stream.feed(drawing([], []))
    shown = [line.rstrip() for line in screen.display]
    expected = pyte.Screen(20, 40)
    expected.set_mode(pyte.modes.LNM)
    pyte.Stream(expected).feed("".join(f"{line}\n" for line in said))
    assert shown == [line.rstrip() for line in expected.display]


def test_a_build_goes_on_when_nobody_reads_its_progress() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = Progress(Gone())
    progress.restored("a.txt")
    progress.finished("b.txt", 1.0, [])
    progress.end()
    assert progress.made == progress.taken == 1


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (89.0, "89 s"),
        (100, "2 min"),
        (5300, "88 min"),
        (5400, "1 h 30 min"),
        (7200, "2 h"),
        (61.4 * 3600, "61 h"),
    ],
)
def test_a_guess_is_told_no_more_exactly_than_it_is(seconds: float, told: str) -> None:
    assert about(seconds) == told


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 8)), max_size=20), st.integers(1, 8))
def test_the_wall_clock_lies_between_the_longest_step_and_one_after_the_other(
    loads: list[tuple[float, int]], jobs: int
) -> None:
    seconds = wall_clock([(s, Request(cpus=cpus)) for s, cpus in loads], jobs)
    assert max((s for s, _ in loads), default=0.0) <= seconds <= sum(s for s, _ in loads) * (1 + 1e-9)


# Events -------------------------------------------------------------------------------------------------------------


def said(space: Space, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """The events of a build; nothing else may be on stdout or stderr."""
    return events(space.build("--json", *words, code=code).text)


def test_events_tell_a_whole_build(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("a.txt", run=sh("echo 1 > {out}; echo 2 > beside"))
        rule("b.txt", a="a.txt", run=sh("cat {a} > {out}"))
        """,
    )
    first = said(space)
    assert [event["event"] for event in first] == [
        "build-started",
        *["step-started", "step-finished"] * 2,
        "summary",
    ]
    started, _, finished, *_, end = first
    base = f"generated/{space.experiment}/assets/"
    assert started["targets"] == [f"{base}a.txt", f"{base}b.txt"] and started["version"] == 1 and not started["dry"]
    assert finished["target"] == f"{base}a.txt" and finished["name"] == "a.txt" and finished["notes"] == ["beside"]
    assert finished["seconds"] >= 0 and finished["peak"] > 0
    assert (end["made"], end["failed"], end["exit"]) == (2, 0, 0)
    space.path("b.txt").unlink()
    again = said(space)
    assert [event["event"] for event in again] == ["build-started", "restored", "summary"]
    assert (again[-1]["restored"], again[-1]["unchanged"]) == (1, 1)
    assert said(space)[-1]["unchanged"] == 2  # also when a snapshot could have answered


def test_an_event_of_a_failure_has_the_parts_of_the_error(space: Space) -> None:
    space.write("script.py", """rule("a.txt", run=sh("echo oh no; exit 3"))\nrule("b.txt", a="a.txt", run=sh("x"))""")
    *_, failed, end = said(space, code=1)
    assert failed["event"] == "failed" and failed["name"] == "a.txt" and failed["code"] == 1
    assert any("oh no" in text for _, text in failed["facts"]) and failed["todo"]
    assert failed["where"] == {"file": f"scripts/{space.experiment}/script.py", "line": 3}
    assert (end["failed"], end["skipped"], end["exit"]) == (1, 1, 1)


def test_a_mistake_before_anything_ran_is_an_event_too(space: Space) -> None:
    space.write("script.py", """rule("a.txt", run=py("nowhere.py:f"))""")
    *_, failed, end = said(space, code=2)
    assert failed["event"] == "failed" and "nowhere.py" in failed["what"] + str(failed["facts"])
    assert end["event"] == "summary" and end["exit"] == 2
    done = space.build("--json", "no-such-target", code=2)
    lines = [line for line in done.text.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events("\n".join(lines))][-2:] == ["failed", "summary"]


# What is foreseen ---------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_expected_times_and_what_it_cannot_know(space: Space) -> None:
    fan_out(space, 3, seconds=0.3)
    dry = space.build("-n").text
    assert re.search(r"^would run     folds\.json   never made here$", dry, re.MULTILINE)
    assert "then, maybe   all.txt   after folds.json\n" in dry
    assert "then unknown  fits/{fold}.txt   how many, after folds.json\n" in dry
    assert "then up to 1 more that depend on their results, and others whose number is not known yet\n" in dry
    space.build()
    space.write("./count.txt", "5\n")
    dry = space.build("-n").text
    assert re.search(r"^would run     folds\.json   .*count\.txt changed   about 0\.\d s$", dry, re.MULTILINE)
    assert re.search(
        r"^then unknown  fits/\{fold\}\.txt   how many, after folds\.json   about 0\.[3-9] s each", dry, re.M
    )
    fan_out(space, 3, seconds=0.4)
    dry = space.build("-n").text
    assert len(re.findall(r"^would run     fits/\d\.txt   its rule changed \(.*\)   about 0\.[3-9] s$", dry, re.M)) == 3
    assert "then unknown" not in dry
    assert re.search(r"^3 would run, 0 from the store, 1 unchanged, .*; about \d\.\d s$", dry, re.MULTILINE)


def test_a_target_that_was_never_made_is_expected_to_take_what_its_siblings_took(space: Space) -> None:
    space.write("script.py", """rule("{n}.txt", run=sh("sleep 0.3; echo {n} > {out}"))""")
    assert "about" not in space.build("-n", "1.txt").text
    space.build("1.txt")
    assert re.search(r"2\.txt   never made here   about 0\.[3-9] s", space.build("-n", "2.txt").text)


def test_a_dry_run_as_events(space: Space) -> None:
    fan_out(space, 3)
    found = {event["event"]: event for event in said(space, "-n")}
    assert found["would"]["name"] == "folds.json" and found["would"]["why"] == "never made here"
    assert found["unknown"]["name"] == "all.txt" and found["unknown"]["after"].endswith("folds.json")
    assert found["unknown-number"]["name"] == "fits/{fold}.txt"
    assert (found["summary"]["would"], found["summary"]["made"]) == (1, 0)
    assert not space.exists("folds.json")


# Prices -------------------------------------------------------------------------------------------------------------


def slow(space: Space, code: str = "") -> None:
    """Four fits that take a quarter of a second each, with code that can change."""
    space.write("src/train.py", f"import time\n\n\ndef fit(n):\n    time.sleep(0.25)\n    return n{code}\n")
    space.write(
        "script.py",
        """
        rule("fits/{n}.txt", run=py("src/train.py:fit"))
        rule("all.txt", fits=each("fits/{n}.txt", n=["1", "2", "3", "4"]), run=sh("cat {fits} > {out}"))
        """,
    )


ANNOUNCED = r"4 steps and up to 1 that depend on them, about \d+\.\d s, because src/train\.py:6 changed"


def test_long_work_is_announced_with_its_price_and_cause_before_it_runs(space: Space) -> None:
    slow(space)
    assert "about" not in space.build("--budget", "0.1s")  # nothing was measured yet
    slow(space, " * 2")
    done = space.build(env={"LABMAKE_BUDGET": "0.1s"})
    assert re.match(ANNOUNCED + "\nmade ", done.text), done.text
    assert len(space.ran) == 5


def test_work_within_the_budget_is_not_announced(space: Space) -> None:
    slow(space)
    space.build()
    slow(space, " * 2")
    assert "because" not in space.build()


def test_on_a_terminal_long_work_is_asked_for(space: Space) -> None:
    slow(space)
    space.build()
    slow(space, " * 2")
    for answers in (["n\n"], ["\n"], ["what?\n", "no\n"], ["\x03"]):
        terminal = Terminal(space, "build", "--budget", "0.1s")
        for count, answer in enumerate(answers, 1):
            terminal.until(lambda text, count=count: text.count("Go on? [y/N]:") == count)  # type: ignore[misc]
            terminal.type(answer)
        assert re.search(ANNOUNCED, terminal.text)
        assert terminal.end(code=130)[-1].startswith("interrupted: nothing made")
    terminal = Terminal(space, "build", "--budget", "0.1s")
    terminal.until(lambda text: "Go on? [y/N]:" in text)
    terminal.type("y\n")
    assert terminal.end()[-1].startswith("5 made")


def test_a_price_says_how_many_steps_were_never_timed(space: Space) -> None:
    slow(space)
    space.build()
    slow(space, " * 2")
    space.write("script.py", space.path("script.py").read_text() + 'rule("new.txt", run=sh("echo 1 > {out}"))\n')
    done = space.build("--budget", "0.1s").text
    assert re.search(r"^5 steps .*, more than \d+\.\d s \(1 was never timed\), because ", done, re.MULTILINE), done


def test_yes_answers_before_it_is_asked(space: Space) -> None:
    slow(space)
    space.build()
    slow(space, " * 2")
    lines = Terminal(space, "build", "--budget", "0.1s", "-y").end()
    assert re.fullmatch(ANNOUNCED, lines[0]) and lines[-1].startswith("5 made")


def test_work_that_is_known_only_after_a_step_is_announced_before_it_runs(space: Space) -> None:
    fan_out(space, 2, seconds=0.3)
    space.build()
    space.write("./count.txt", "9\n")
    done = space.build("--budget", "1s", "-j", "2")
    told = re.search(r"^7 steps and up to 1 that depend on them, about .*they were never made here", done.text, re.M)
    assert told is not None, done.text
    before, after = done.text[: told.start()], done.text[told.end() :]
    assert "made      folds.json" in before and "fits/" not in before and after.count("made      fits/") == 7


def test_a_price_is_an_event(space: Space) -> None:
    slow(space)
    space.build()
    slow(space, " * 2")
    _, told, *_ = said(space, "--budget", "0.1s")
    assert told["event"] == "price" and (told["steps"], told["depending"]) == (4, 1)
    assert told["because"] == "src/train.py:6 changed" and told["expected"] > 0.2


def test_a_budget_that_is_no_time_is_an_error(space: Space) -> None:
    space.write("script.py", "")
    assert "the budget is no time: soon" in space.build("--budget", "soon", code=2)
