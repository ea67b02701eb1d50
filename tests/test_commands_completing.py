"""Completion: commands, targets, options and experiments, asked for as the shells do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from space import EXPERIMENT, Space
from terminal import Terminal

SCRIPT = """
rule("data/words.json", run=sh("echo '[1,2]' > {out}"))
rule("data/fits/{n}.txt", n_="data/words.json#{n}", run=sh("cp {n_} {out}"))
rule("figures/plot1.svg", "figures/plot1.csv", run=sh("touch {out}"))
group("paper", "figures/plot1.svg")
"""


@pytest.fixture
def written(space: Space) -> Space:
    space.write("script.py", SCRIPT)
    program = space.root.parent / "bin" / "labmake"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m labmake.cli.entry "$@"\n')
    program.chmod(0o755)
    (program.parent / "lm").symlink_to(program)
    return space


def env(space: Space) -> dict[str, str]:
    path = f"{space.root.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(space.root.parent), "TERM": "dumb"}


def completed(space: Space, *words: str) -> list[str]:
    """What bash makes of the last word: its own function, called as bash calls it."""
    quoted = " ".join(f"'{word}'" for word in words)
    text = f"""
        eval "$(labmake completion bash)"
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        _labmake_completion {words[0]} 2>&1
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """
    done = subprocess.run(
        ["bash", "-c", text], cwd=space.root, env=env(space), capture_output=True, text=True, timeout=60, check=True
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


def test_a_first_word_becomes_a_command_a_target_or_a_group(written: Space) -> None:
    assert completed(written, "labmake", "resto") == ["restore"]
    everything = completed(written, "labmake", "")
    assert {"build", "why", "gc", "data/words.json", "figures/plot1.svg", "paper"} <= set(everything)
    assert not any("{" in word for word in everything)
    assert completed(written, "labmake", "figures/") == ["figures/plot1.svg", "figures/plot1.csv"]
    assert completed(written, "lm", "data/w") == ["data/words.json"]


def test_stems_that_one_target_has_are_offered_and_names_where_a_stem_means_two(written: Space) -> None:
    assert completed(written, "labmake", "why", "wor") == ["words"]
    assert completed(written, "labmake", "why", "plot") == ["plot1.svg", "plot1.csv"]
    written.run("why", "words")
    written.run("why", "plot1.svg")


def test_targets_of_rules_with_wildcards_are_offered_once_they_were_made(written: Space) -> None:
    assert completed(written, "labmake", "build", "data/fits/") == []
    written.build("data/fits/1.txt")
    assert completed(written, "labmake", "build", "data/fits/") == ["data/fits/1.txt"]
    whole = f"generated/{EXPERIMENT}/assets/data/fits/"
    assert completed(written, "labmake", whole[:-4]) == [f"{whole}1.txt"]


@pytest.mark.parametrize("command", [["shell"], ["debug"], ["peek"], ["build", "--set"], ["build", "data/x", "--set"]])
def test_commands_for_working_on_a_step_complete_targets_too(written: Space, command: list[str]) -> None:
    assert completed(written, "labmake", *command, "data/w") == ["data/words.json"]
    assert completed(written, "labmake", "shell", "--ke") == ["--keep"]


def test_after_run_the_shell_completes_files(written: Space) -> None:
    assert "data/words.json" not in completed(written, "labmake", "run", "")


def test_options_and_experiments_are_completed(written: Space) -> None:
    assert "--discard-edits" in completed(written, "labmake", "--dis")
    assert completed(written, "labmake", "gc", "--keep") == ["--keep-days"]
    assert completed(written, "labmake", "status", "-e", "story") == [EXPERIMENT]
    (written.root / "scripts" / "2026-05-05-Other").mkdir()
    (written.root / "scripts" / "2026-05-05-Other" / "script.py").write_text(
        'from labmake import rule, sh\nrule("data/other.txt", run=sh("touch {out}"))\n'
    )
    assert completed(written, "labmake", "build", "-e", "2026-05-05-Other", "data/") == ["data/other.txt"]


def test_nothing_is_built_said_or_left_behind_and_a_broken_script_offers_no_targets(written: Space) -> None:
    written.build("figures/plot1.svg")
    written.run()
    assert "data/words.json" in completed(written, "labmake", "")  # a null build would be answered by gear 1
    written.write("script.py", "rule(")
    assert completed(written, "labmake", "why", "") == []
    assert "build" in completed(written, "labmake", "")
    outside = written.root.parent / "outside"
    outside.mkdir()
    written.root = outside
    assert completed(written, "labmake", "why", "") == []


def test_a_tab_does_not_wait_for_a_collection(written: Space) -> None:
    from labmake.store.sharing import alone

    written.build("data/words.json")
    with alone(written.root / ".git" / "labmake" / "store", lambda: None):
        assert completed(written, "labmake", "why", "wor") == ["words"]


SHELLS = {
    "bash": (
        ("bash", "--norc", "--noprofile", "-i"),
        'PS1="ready> "; bind "set enable-bracketed-paste off"; eval "$(labmake completion bash)"',
    ),
    "zsh": (
        ("zsh", "-f", "-i"),
        "PS1='ready> '; autoload -U compinit; compinit -u -D; eval \"$(labmake completion zsh)\"",
    ),
    "fish": (
        ("fish", "--no-config", "-i"),
        "function fish_prompt; echo -n 'ready> '; end; labmake completion fish | source",
    ),
}
"""How each shell is started without a user's own settings, and what a user writes into its settings."""


@pytest.fixture(params=SHELLS)
def shell(written: Space, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A real shell on a terminal, with labmake's completion loaded; it shows its prompt and nothing else."""
    program, settings = SHELLS[request.param]
    terminal = Terminal(written, program=program, **{**env(written), "TERM": "xterm"})
    terminal.until(lambda text: text)
    terminal.type(settings + "; clear\r")
    terminal.until(lambda text: text == "ready>")
    yield terminal
    terminal.close()


def typed(terminal: Terminal, text: str, expected: str) -> None:
    """Type on the shell's command line until it shows what is expected, and take it back."""
    terminal.type(text)
    terminal.until(lambda shown: shown.splitlines()[:1] == [f"ready> {expected}"])
    terminal.type("\x15")
    terminal.until(lambda shown: shown.splitlines()[:1] == ["ready>"])


def test_tab_in_a_real_shell_completes_commands_options_and_targets(shell: Terminal) -> None:
    typed(shell, "labmake resto\t", "labmake restore")
    typed(shell, "labmake build --disc\t", "labmake build --discard-edits")
    typed(shell, "labmake why wor\t", "labmake why words")
    typed(shell, "lm data/w\t", "lm data/words.json")
    typed(shell, "labmake clean pap\t", "labmake clean paper")


def test_tab_in_a_real_shell_shows_what_there_is_to_choose_from(shell: Terminal) -> None:
    shell.type("labmake figures/\t")
    shell.until(lambda shown: "labmake figures/plot1" in shown)
    shell.type("\t\t")
    shell.until(lambda shown: "plot1.svg" in shown and "plot1.csv" in shown)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_s_script_is_valid_and_serves_both_names(written: Space, tmp_path: Path, shell: str) -> None:
    script = written.run("completion", shell).text
    assert "_LABMAKE_COMPLETE" in script and "lm" in script.split()
    path = tmp_path / f"completion.{shell}"
    path.write_text(script)
    subprocess.run([shell, "--no-execute" if shell == "fish" else "-n", str(path)], check=True, timeout=60)


@pytest.mark.parametrize(("shell", "asked"), [("zsh", "plain\nwords\n_"), ("fish", "plain,words")])
def test_zsh_and_fish_get_targets_in_their_own_form(written: Space, shell: str, asked: str) -> None:
    words = {"COMP_WORDS": "labmake why wor", "COMP_CWORD": "2" if shell == "zsh" else "wor"}
    done = written.run(env={**words, "_LABMAKE_COMPLETE": f"{shell}_complete"})
    assert done.text.strip() == asked


def test_an_unknown_shell_is_refused_with_those_there_are(written: Space) -> None:
    done = written.run("completion", "tcsh", code=2)
    assert "bash" in done and "fish" in done
