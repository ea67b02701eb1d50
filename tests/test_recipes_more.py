"""More recipes: Julia with its manifest, and steps that are tried again."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from space import Space

JULIA = """#!/usr/bin/env bash
# A stand-in for Julia: checks how it is called, and runs "scripts" that name the files they copy.
set -eu
flags=()
while [[ ${1:-} == --* ]]; do flags+=("$1"); shift; done
[[ " ${flags[*]} " == *" --startup-file=no "* && " ${flags[*]} " == *" --project=. "* ]] || exit 90
script=$1; shift
[[ -f $script && -f $LABMAKE_STEP ]] || exit 91
for word in "$@"; do declare "${word%%=*}=${word#*=}"; done
{ cat "$script" "$x"; echo "alpha=$alpha threads=$JULIA_NUM_THREADS"; ls; } > "$out"
"""

PROJECT = '[deps]\nCSV = "336ed68f-0bac-5ca0-87d4-7b16caf5d00b"\n'


@pytest.fixture
def julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called julia, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "julia"
    program.write_text(JULIA)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return program


def fit(space: Space) -> None:
    """A Julia step with everything it may have."""
    space.write("src/fit.jl", 'include("tools.jl")\n')
    space.write("src/tools.jl", "answer = 42\n")
    space.write("./x.txt", "data\n")
    space.write(
        "script.py",
        """
        from labmake import julia, rule
        rule("data/fit.txt", x="./x.txt", cpus=2, run=julia("src/fit.jl", alpha=0.5))
        """,
    )


def test_a_julia_script_gets_names_and_values_and_its_own_project(space: Space, julia: Path) -> None:
    fit(space)
    space.write("/Project.toml", PROJECT)
    space.write("/Manifest.toml", "# locked\n")
    space.build("-j", "2")
    said = space.read("data/fit.txt").splitlines()
    assert said[:3] == ['include("tools.jl")', "data", "alpha=0.5 threads=2"]
    assert {"Project.toml", "Manifest.toml"} <= set(said[3:])


@pytest.mark.parametrize("name", ["/Project.toml", "/Manifest.toml", "src/fit.jl", "src/tools.jl"])
def test_the_manifest_the_script_and_what_it_includes_are_code_of_a_julia_step(
    space: Space, julia: Path, name: str
) -> None:
    fit(space)
    space.write("/Project.toml", PROJECT)
    space.write("/Manifest.toml", "# locked\n")
    space.build()
    assert "up to date" in space.build()
    space.write(name, space.read(name) + "# more\n")
    assert re.search(rf"code +{name.lstrip('/')}:\d", space.why("data/fit.txt").text), space.last.text
    space.build()
    assert space.ran == ["data/fit.txt"]


def test_a_shell_command_that_runs_julia_has_the_manifest_too(space: Space, julia: Path) -> None:
    space.write("/Project.toml", PROJECT)
    space.write("script.py", "rule('data/there.txt', run=sh('ls > {out}; type julia > /dev/null'))\n")
    space.build()
    assert "Project.toml" in space.read("data/there.txt")


def test_a_step_that_is_not_julia_does_not_depend_on_its_manifest(space: Space, julia: Path) -> None:
    space.write("/Project.toml", PROJECT)
    space.write("script.py", "rule('data/there.txt', run=sh('ls > {out}'))\n")
    space.build()
    assert "Project.toml" not in space.read("data/there.txt")
    space.write("/Project.toml", PROJECT + "# more\n")
    assert "up to date" in space.build()


@pytest.mark.skipif(shutil.which("julia") is None, reason="julia is not installed")
def test_real_julia_runs_a_script(space: Space) -> None:
    space.write(
        "src/fit.jl",
        """
        step = Dict(split(word, "=", limit=2) for word in ARGS)
        write(step["out"], string(parse(Float64, step["alpha"]) * 2))
        """,
    )
    space.write("script.py", "from labmake import julia, rule\nrule('a.txt', run=julia('src/fit.jl', alpha=0.5))\n")
    space.build()
    assert space.read("a.txt") == "1.0"


# Tried again --------------------------------------------------------------------------------------------------------


def flaky(space: Space, command: str, words: str = "retries=2") -> None:
    """A step that notes each attempt outside of the project, then does what `command` says with their number."""
    attempt = f"echo x >> {space.notes}; n=$(wc -l < {space.notes}); "
    space.write("script.py", f"rule('data/x.txt', {words}, run=sh({attempt + command!r}))\n")


def test_a_step_that_fails_is_tried_again_at_once_and_each_attempt_is_noted(space: Space) -> None:
    flaky(space, "[ $n -ge 3 ] || exit 7; echo $n > {out}")
    done = space.build()
    assert space.ran == ["data/x.txt"] and space.read("data/x.txt").strip() == "3"
    assert "attempt 1 failed, exit code 7" in done and "attempt 2 failed, exit code 7" in done
    assert "nothing failed" in space.run("failures")
    assert "up to date" in space.build() and len(space.noted()) == 3


def test_after_its_last_attempt_it_has_failed(space: Space) -> None:
    flaky(space, "echo talk $n; exit 7")
    done = space.build(code=1)
    assert len(space.noted()) == 3 and done.text.count("error:") == 1
    assert "attempts" in done and "exit code" in done and "talk 3" in done
    space.build(code=1)
    assert len(space.noted()) == 6, "the next build tries as often again"


def test_a_time_out_and_a_kill_count_as_failures(space: Space) -> None:
    flaky(space, "[ $n != 1 ] || sleep 100; [ $n != 2 ] || kill -9 $$; echo $n > {out}", "retries=2, time='1s'")
    done = space.build()
    assert space.read("data/x.txt").strip() == "3"
    assert "attempt 1 failed, its time was over" in done and "attempt 2 failed, killed by SIGKILL" in done


def test_a_step_that_ends_well_without_its_output_is_not_tried_again(space: Space) -> None:
    flaky(space, "true")
    assert "did not write" in space.build(code=1) and len(space.noted()) == 1


def test_two_targets_of_one_action_share_its_attempts(space: Space) -> None:
    other = "2026-01-03-Copy"
    flaky(space, "exit 1")
    shutil.copytree(space.root / "scripts" / space.experiment, space.root / "scripts" / other)
    space.build(f"{space.experiment}:data/x.txt", f"{other}:data/x.txt", "-e", "Story", "-j", "2", code=1)
    assert len(space.noted()) == 3


def test_retries_change_no_result(space: Space) -> None:
    flaky(space, "echo $n > {out}", "retries=2")
    space.build()
    flaky(space, "echo $n > {out}", "retries=3")
    assert space.build() and space.ran == []


def test_a_plan_may_say_how_often_its_step_is_tried(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        @plan("data/x.txt")
        def x():
            return step(run=sh("echo x >> {space.notes}; [ $(wc -l < {space.notes}) = 2 ]; echo > {{out}}"), retries=1)
        """,
    )
    space.build()
    assert len(space.noted()) == 2


@pytest.mark.parametrize("value", ["-1", "'2'", "True", "1.5"])
def test_retries_takes_a_number(space: Space, value: str) -> None:
    space.write("script.py", f"rule('data/x.txt', retries={value}, run=sh('echo > {{out}}'))\n")
    assert "retries= takes a number, 0 or more" in space.build(code=2)
