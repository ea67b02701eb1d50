"""Completion: commands, targets, options and experiments, asked for as the shells do."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from space import EXPERIMENT, Space

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


def test_tab_in_a_real_bash_on_a_terminal_completes_the_word(written: Space) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(written.root)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**env(written), "PS1": "ready> "})
    try:
        _until(terminal, b"ready> ")
        os.write(terminal, b'bind "set enable-bracketed-paste off"; eval "$(labmake completion bash)"; echo e""valed\n')
        _until(terminal, b"evaled\r\n")
        os.write(terminal, b"labmake why wor\t")
        assert b"labmake why words" in _until(terminal, b"why words")
    finally:
        os.close(terminal)
        os.kill(child, 9)
        os.waitpid(child, 0)


def _until(terminal: int, words: bytes) -> bytes:
    """What the terminal shows, read until these words are in it."""
    seen = b""
    end = time.monotonic() + 120
    while words not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)
    return seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_s_script_is_valid_and_serves_both_names(written: Space, tmp_path: Path, shell: str) -> None:
    script = written.run("completion", shell).text
    assert "_LABMAKE_COMPLETE" in script and "lm" in script.split()
    if shutil.which(shell) is None:
        return
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
