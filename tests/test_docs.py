"""The documentation is true: its rules load, its commands parse, its links lead somewhere, its tutorial runs."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

import labmake
from labmake import api, formats, results
from labmake.cli.main import command
from labmake.layout import Project
from labmake.loading import load

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
NAMES = [str(path.relative_to(ROOT / "docs")) for path in DOCS]
HEADER = f"from labmake import {', '.join(labmake.__all__)}\n"
DECLARES = re.compile(r"\b(?:rule|source|plan|group)\(")
PLACED = re.compile(r"`([\w./-]+)`(, at the end|, a change)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file name above it with what becomes of that file."""

    language: str
    text: str
    file: str = ""
    how: str = ""


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    lines, before = iter(text.splitlines()), ""
    for line in lines:
        fence = re.fullmatch(r"(`{3,})(\w*)", line)
        if fence is None:
            before = line if line.strip() else before
            continue
        inside = "".join(f"{one}\n" for one in iter(lambda: next(lines), fence[1]))
        placed = PLACED.fullmatch(before)
        yield Block(fence[2], inside, placed[1] if placed else "", (placed[2] or ", whole") if placed else "")
        before = ""


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `labmake …` that a document shows, in blocks and in running text."""
    lines = [
        line.removeprefix("$ ")
        for block in blocks(text)
        if block.language in ("", "console", "sh")
        for line in block.text.splitlines()
    ]
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose(text))]
    for line in lines:
        if re.match(r"(labmake|lm)(\s|$)", line):
            yield shlex.split(re.split(r"\s(?:&&|[|>;#])", line)[0])[1:]


@pytest.mark.parametrize("name", NAMES)
def test_python_in_the_docs_is_python_and_its_rules_load(name: str, tmp_path: Path) -> None:
    for number, block in enumerate(one for one in blocks(read(name)) if one.language == "python"):
        ast.parse(block.text)
        if not DECLARES.search(block.text):
            continue
        general = '"generated/{exp}/' in block.text
        experiment = "" if general else "2026-01-02-Docs"
        root = tmp_path / str(number)
        file = root / ("rules.py" if general else f"scripts/{experiment}/script.py")
        file.parent.mkdir(parents=True)
        file.write_text(block.text if "import" in block.text[:80] else HEADER + block.text)
        read_in = load(Project(root, root / ".labmake"), experiment)
        assert read_in.rules or read_in.groups


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_docs_are_ones_that_labmake_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for word, one in command.commands.items():
        monkeypatch.setattr(one, "callback", lambda _word=word, **_: called.append(_word))
    for words in commands(read(name)):
        if len(words) == 1 and words[0] in command.commands:
            continue  # running text names the command
        try:
            command.main(words, prog_name="labmake", standalone_mode=False)
        except click.ClickException as error:
            pytest.fail(f"{name}: labmake {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("name", NAMES)
def test_links_in_the_docs_lead_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / "docs" / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(read(name))):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = page.parent / file if file else page
        assert found.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(found.read_text()), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{name}: {target}"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("design/")])
def test_design_pages_name_code_and_tests_that_exist(name: str) -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    for span in re.findall(r"`([^`\s]+)`", prose(read(name))):
        if re.fullmatch(r"test_\w+", span):
            assert f"def {span}(" in tests, f"{name}: {span}"
        elif re.fullmatch(r"(?:src|tests|docs|examples|benchmarks)/[\w./-]+\.\w+", span):
            assert (ROOT / span).exists(), f"{name}: {span}"
        elif re.fullmatch(r"(?:engine|store|executors|environment|data|documents|cli)/\w+\.py", span):
            assert (ROOT / "src/labmake" / span).exists(), f"{name}: {span}"


def test_every_command_and_option_is_documented() -> None:
    text = read("command-line.md")
    for word, one in command.commands.items():
        assert f"`labmake {word}" in text, word
        section = text.partition(f"## `labmake {word}")[2].partition("\n## ")[0]
        for option in one.params:
            for form in option.opts if isinstance(option, click.Option) else ():
                assert f"`{form}" in section, f"labmake {word} {form}"


def test_every_public_name_is_documented() -> None:
    text = read("rules.md") + read("recipes.md")
    for name in labmake.__all__:
        assert f"`{name}(" in text or f"`@{name}(" in text, name


def test_every_option_of_a_rule_is_documented_and_no_other() -> None:
    section = read("rules.md").partition("## Options")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `(\w+)", section, re.MULTILINE))
    assert rows == set(api.OPTIONS)
    for word in api.LATER:
        assert f"`{word}`" in section, word


def test_the_tables_of_formats_are_those_of_the_code() -> None:
    text = read("recipes.md")
    for kind, writers in results._WRITERS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {kind} "))
        assert set(re.findall(r"`(\.\w+)`", row)) - {".pkl"} == set(writers), kind
    for kind, loaders in formats._LOADERS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind}` |"))
        assert set(re.findall(r"`(\.\w+)`", row)) == set(loaders), kind


# The tutorial ------------------------------------------------------------------------------------------------------


def masked(line: str) -> str:
    """A line of output without what differs from run to run: times, digests."""
    line = re.sub(r"\b\d+(\.\d)? s\b", "T s", line)
    return re.sub(r"\b[0-9a-f]{12,16}\b", "H", line).rstrip()


def differs(shown: list[str], printed: list[str]) -> bool:
    """Whether output is not as shown: the same lines in any order; a line `…` leaves lines out, one may end so."""
    left = [masked(line) for line in printed if line.strip()]
    for line in (masked(one) for one in shown if one.strip() and one != "…"):
        start = line.removesuffix("…")
        found = next((one for one in left if one == line or (start != line and one.startswith(start))), None)
        if found is None:
            return True
        left.remove(found)
    return bool(left) and "…" not in shown


def put(path: Path, block: Block) -> None:
    """Do to a file what the tutorial's reader does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if block.how == ", whole":
        path.write_text(block.text)
    elif block.how == ", at the end":
        path.write_text(f"{path.read_text()}{block.text}")
    else:
        lines = block.text.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] == sign) for sign in "-+")
        assert path.read_text().count(old) == 1, old
        path.write_text(path.read_text().replace(old, new))


def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of the tutorial's reader: labmake on PATH, a git identity, nothing of this machine's git."""
    program = tmp_path / "bin" / "labmake"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m labmake.cli.main "$@"\n')
    program.chmod(0o755)
    who = {f"GIT_{role}_{what}": "reader" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    sources = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **who, "PATH": path, "PYTHONPATH": sources, "GIT_CONFIG_GLOBAL": os.devnull}


def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    env, folder = shell(tmp_path), tmp_path
    for block in blocks(read("tutorial.md")):
        if block.file:
            put(folder / block.file, block)
        if block.language != "console":
            continue
        for part in block.text.removeprefix("$ ").split("\n$ "):
            line, *shown = part.splitlines()
            if line.startswith("cd "):
                folder /= line[3:]
                continue
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=300,
                check=False,
            )
            assert not differs(shown, done.stdout.splitlines()), (
                f"$ {line}\nshown:\n{textwrap.indent(chr(10).join(shown), '  ')}\n"
                f"printed:\n{textwrap.indent(done.stdout, '  ')}"
            )
    assert (folder / "generated/2026-01-15-Springs/outputs/report.pdf").read_bytes().startswith(b"%PDF")
