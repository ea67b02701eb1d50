"""`labmake build --set PATTERN NAME=VALUE…`: what steps book in one build; nothing reruns because of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space import EXPERIMENT, Space

from labmake.engine.patterns import glob_expression, match
from labmake.engine.settings import Setting
from labmake.errors import Where
from labmake.model import Rule

SCRIPT = """
rule("models/{n:[0-9]+}/", run=sh("echo $LABMAKE_CPUS > {out}cpus"))
rule("data/huge.txt", memory="900T", run=sh("echo $LABMAKE_CPUS > {out}"))
rule("data/flaky.txt", run=sh("echo x >> NOTES; test $(wc -l < NOTES) = 3; touch {out}"))
"""


@pytest.fixture
def written(space: Space) -> Space:
    space.write("script.py", SCRIPT.replace("NOTES", str(space.notes)))
    return space


def cpus(space: Space, *names: str) -> list[str]:
    return [space.read(f"{name}/cpus").strip() for name in names]


def test_a_step_that_cannot_start_is_let_run(written: Space) -> None:
    told = written.build("huge", code=1).text
    assert "more memory than this machine has" in told and "--set" in told
    written.build("huge", "--set", "data/huge.txt", "memory=1M")
    assert written.ran == ["data/huge.txt"]
    written.build("huge")
    assert written.ran == []


def test_several_values_and_several_patterns_and_the_later_one_wins(written: Space) -> None:
    words = ["--set", "models/*", "cpus=2", "time=1h", "--set", "models/2", "cpus=1", "models/1/", "models/2/"]
    written.run("build", "-j", "2", *words)
    assert cpus(written, "models/1", "models/2") == ["2", "1"]


@pytest.mark.parametrize(
    "pattern",
    ["models/*", "models/1", "models/1/", "models/?", "models/[0-3]", "**", f"generated/{EXPERIMENT}/**", "m*/*"],
)
def test_a_pattern_is_of_short_and_of_whole_paths(written: Space, pattern: str) -> None:
    written.run("build", "-j", "2", "models/1/", f"--set={pattern}", "cpus=2")
    assert cpus(written, "models/1") == ["2"]


@pytest.mark.parametrize("pattern", ["models", "*", "models/2", "data/*"])
def test_a_star_is_within_a_name(written: Space, pattern: str) -> None:
    written.write("script.py", SCRIPT + 'rule("top.txt", run=sh("touch {out}"))\nrule("models.txt", run=sh("a"))')
    done = written.run("build", "-j", "2", "models/1/", "--set", pattern, "cpus=2", code=None)
    assert done.code == 2 if pattern == "models" else cpus(written, "models/1") == ["1"]
    if pattern != "models":
        assert f"--set {pattern}: no step of these had to run" in done


def test_nothing_reruns_because_of_it(written: Space) -> None:
    written.run("build", "models/1/")
    written.run("build", "models/1/", "--set", "models/*", "memory=1G", "cpus=2")
    assert written.ran == [] and cpus(written, "models/1") == ["1"]
    assert "up to date" in written.run("build", "models/1/", "--set", "models/*", "memory=1G", "cpus=2")


def test_retries_are_set(written: Space) -> None:
    written.run("build", "flaky", "--set", "data/*", "retries=2")
    assert written.ran == ["data/flaky.txt"] and len(written.noted()) == 3


def test_a_time_is_set(written: Space) -> None:
    written.write("script.py", 'rule("data/slow.txt", run=sh("sleep 60; touch {out}"))')
    assert "exceeded its time (0.2 s)" in written.run("build", "--set", "**", "time=0.2s", code=1)


def test_without_the_word_build_and_after_two_dashes(written: Space) -> None:
    written.run("--set", "models/*", "cpus=1", "--", "models/1/")
    assert written.ran == ["models/1/"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "models/*", "memry=1G"], "did you mean memory=?"),
        (["--set", "models/*", "environment=all"], "environment= cannot be set for one build"),
        (["--set", "models/*", "secrets=A"], "secrets= cannot be set for one build"),
        (["--set", "models/*", "run=x"], "run= is nothing that a step has"),
        (["--set", "models/*", "memory=lots"], "memory= takes an amount such as 2G"),
        (["--set", "models/*", "cpus=0"], "cpus= takes a number"),
        (["--set", "models/*", "cpus=1.5"], "cpus= takes a number"),
        (["--set", "models/*", "retries=-1"], "retries= takes a number"),
        (["--set", "models/*", "time="], "time= takes a duration"),
        (["--set", "models/*"], "--set sets nothing"),
        (["--set", "memory=1G"], "--set names no targets"),
        (["--set"], "requires an argument"),
        (["--set", "modles/*", "memory=1G"], "--set names no target"),
        (["--set", "models/x/y/*", "memory=1G"], "--set names no target"),
        (["--set", "", "memory=1G"], "--set names no target"),
        (["--set", "models/final", "memory=1G"], "--set names no target"),
    ],
)
def test_mistakes_are_told_before_anything_runs(written: Space, words: list[str], told: str) -> None:
    text = written.run("build", "models/1/", *words, code=2).text
    assert text.startswith("error: ") and told in text and "Traceback" not in text
    assert not written.exists("models/1/")


PIECES = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?", "x"]), min_size=1, max_size=6).map("".join)
RULES = st.lists(st.sampled_from(["a", "b", "x", "/", "{n}"]), min_size=1, max_size=5).map("".join)


@given(PIECES, RULES, st.lists(st.text("abx", min_size=1, max_size=2), min_size=1, max_size=4))
def test_a_pattern_that_fits_a_target_may_fit_its_rule(glob: str, pattern: str, values: list[str]) -> None:
    if pattern.count("{n}") > 1 or pattern.rstrip("/") != pattern or not pattern:
        return
    rule = Rule({"out": f"generated/assets/{pattern}"}, "", Where("rules.py"), "")
    setting = Setting(glob, {})
    for value in values:
        path = f"generated/assets/{pattern.replace('{n}', value)}"
        if match(f"generated/assets/{pattern}", path) is not None and setting.fits(path, ""):
            assert setting.may_fit(rule, ""), glob_expression(glob)
