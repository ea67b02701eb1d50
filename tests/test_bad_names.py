"""Names of any kind go through shell and Python unharmed; words that mean nothing on the command line are refused."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from space import EXPERIMENT, Space
from told import told

OTHER = 'rule("data/other.txt", run=sh("echo other > {out}"))\n'

NAMES = [
    "a b",
    " ",
    "a'b",
    'a"b',
    "$HOME",
    "$(id)",
    "${x}",
    "`id`",
    "a\nb",
    "a\tb",
    "a\\b",
    "-n",
    "--",
    "#x",
    "a#b",
    "100%",
    "%s",
    "*",
    "?",
    "[a]",
    "~",
    "!x",
    "&",
    "|",
    ";",
    "a=b",
    "a:b",
    "@x",
    "..a",
    ".hidden",
    "{k}",
    "{x}",
    "}{",
    "{{out}}",
    "\x01",
    "\x7f",
    "\u202e",
    unicodedata.normalize("NFC", "éü"),
    unicodedata.normalize("NFD", "éü"),
    "日本語",
    "é" * 122,
    "x" * 250,
]

ROUND_TRIP = r"""
NAMES = [NAMES]
SHELL = r'''
    printf '%s\0' {k} "{k}" '{k}' {x} "{x}" '{x}' {out} > {out}
    cat {x} "{x}" '{x}' >> {out}
'''
rule("shell/{k}", x="/in/{k}", run=sh(SHELL))

rule("python/{k}", x="shell/{k}", run=py("script.py:python", names=NAMES))
def python(x: bytes, k, out, names):
    assert k in names and out.name == k
    return x + b"\0" + k.encode()

rule("all.json", x=each("python/{k}", k=NAMES), run=py("script.py:collect"))
def collect(x):
    return {k: path.read_bytes().decode() for k, path in x.items()}

WORDS = r'''
    for f in {x}; do cat "$f"; done > {out}
    cat {x} | cmp - {out}
'''
rule("words.txt", x=each("python/{k}", k=NAMES), run=sh(WORDS))
"""


def round_trip(space: Space, names: list[str]) -> None:
    """Send names through wildcards, inputs and outputs of shell and Python steps, and compare what arrives."""
    for name in names:
        space.write(f"/in/{name}", f"in {name[:5]}".encode())
    space.write("script.py", ROUND_TRIP.replace("[NAMES]", ascii(names)))
    space.build()
    collected = json.loads(space.path("all.json").read_text())
    assert list(collected) == names
    for name in names:
        words = collected[name].split("\0")
        assert words[:3] == [name] * 3
        assert words[3:6] == [f"in/{name}"] * 3
        assert words[6:] == [f"shell/{name}", f"in {name[:5]}" * 3, name]
    space.build()
    assert space.ran == [] and "up to date" in space.last


def test_names_of_any_kind_go_through_shell_and_python(space: Space) -> None:
    round_trip(space, NAMES)


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\r"), min_size=1, max_size=60).filter(
            lambda name: name not in (".", "..") and not any(f".{s}#" in name for s in ("json", "csv", "tsv"))
        ),
        min_size=20,
        max_size=20,
        unique_by=lambda name: unicodedata.normalize("NFC", name).casefold(),
    )
)
def test_drawn_names_go_through_shell_and_python(space: Space, names: list[str]) -> None:
    round_trip(space, names)


@pytest.mark.parametrize("name", ["a b", "-n", "#x", "$HOME", "a'b", "日本語", "{x}", "x" * 250])
def test_a_name_of_any_kind_can_be_asked_for_on_the_command_line(space: Space, name: str) -> None:
    space.write("script.py", 'rule("data/{k}", run=sh("printf %s {k} > {out}"))\n')
    for word in (f"data/{name}", f"generated/{EXPERIMENT}/assets/data/{name}"):
        space.build(word)
        assert space.path("data").joinpath(name).read_text() == name


def test_a_target_that_begins_with_a_dash_is_asked_for_after_two_dashes(space: Space) -> None:
    space.write("script.py", 'rule("-n.txt", run=sh("echo n > {out}"))\n')
    space.build("--", "-n.txt")
    assert space.read("-n.txt") == "n\n"


def test_names_in_two_normal_forms_are_two_targets(space: Space) -> None:
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    space.write("script.py", f'for k in {forms!a}:\n    rule(f"data/{{k}}", run=sh("printf %s x > {{out}}"))\n')
    space.build()
    assert len(space.ran) == 2


def test_a_file_whose_name_is_not_utf_8_is_named_and_the_rest_is_built(space: Space) -> None:
    folder = space.path("./in")
    folder.mkdir()
    try:
        Path(f"{folder}/\udcff").write_text("x")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    space.write("script.py", OTHER + 'rule("data/a.txt", x=glob("./in/*"), run=sh("cat {x} > {out}"))\n')
    told(space, "not UTF-8", "rename", "needed by  data/a.txt")
    assert space.ran == ["data/other.txt"]


@pytest.mark.parametrize(("key", "words"), [("a\nb", "newline"), ("x" * 260, "longer than a file's name may be")])
def test_a_key_that_cannot_be_a_files_name_is_told(space: Space, key: str, words: str) -> None:
    space.write("./k.json", json.dumps([key]))
    space.write(
        "script.py",
        OTHER
        + 'rule("data/f-{k}.txt", run=sh("echo > {out}"))\n'
        + 'rule("data/a.txt", x=each("data/f-{k}.txt", k="./k.json"), run=sh("cat {x} > {out}"))\n',
    )
    told(space, words, "needed by  data/a.txt")
    assert space.ran == ["data/other.txt"]


# Words of the command line. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["../x", "/etc/passwd", "..", "~/x", "generated/../../x"])
def test_a_target_outside_of_the_project_is_refused(space: Space, word: str) -> None:
    space.write("script.py", OTHER)
    told(space, "the project", command=(word,))


@pytest.mark.parametrize(
    "word", ["", ".", "nope", "a\nb", "data/other.txt/x", "@x", "?env HOME", "x" * 5000, "\x1b[31m"]
)
def test_a_word_that_names_no_target_is_refused_in_a_few_lines(space: Space, word: str) -> None:
    space.write("script.py", OTHER)
    text = told(space, "no rule makes", "data/other.txt", command=("build", word))
    assert len(text) < 1000 and "\x1b" not in text and len(text.splitlines()) == 4


def test_a_source_file_is_no_target(space: Space) -> None:
    space.write("script.py", OTHER)
    told(space, "is a source file: nothing makes it", command=(f"scripts/{EXPERIMENT}/script.py",))


def test_a_stem_that_means_two_targets_is_refused_with_both(space: Space) -> None:
    space.write("script.py", 'rule("data/a.txt", run=sh("x"))\nrule("figures/a.svg", run=sh("x"))\n')
    told(space, "a means several targets", "data/a.txt", "figures/a.svg", "give more of the path", command=("a",))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("-x",), "-x"),
        (("build", "--jobz", "3"), "--jobs"),
        (("build", "-j", "0"), "-j"),
        (("build", "-j", "many"), "many"),
        (("why",), "TARGET"),
        (("logs", "data/other.txt"), "has no log"),
        (("build", "-e", "nope"), "no experiment is called nope"),
        (("status", "-e", "nope"), EXPERIMENT),
    ],
)
def test_a_command_line_that_cannot_be_is_refused_in_three_parts(
    space: Space, command: tuple[str, ...], words: str
) -> None:
    space.write("script.py", OTHER)
    told(space, words, command=command)


def test_an_experiment_that_is_not_clear_is_asked_for_by_name(space: Space) -> None:
    space.write("script.py", OTHER)
    space.write("/scripts/2026-01-03-Second/script.py", OTHER)
    told(space, EXPERIMENT, "2026-01-03-Second", "-e NAME")
    told(space, "several experiments are called 2026", command=("build", "-e", "2026"))
    space.build("-e", "Second")
    assert (space.root / "generated/2026-01-03-Second/assets/data/other.txt").exists()
    assert not space.exists("data/other.txt")


def test_labmake_inside_of_a_step_is_refused(space: Space) -> None:
    space.write("script.py", OTHER)
    space.run("build", env={"LABMAKE_IN_STEP": "1"}, code=2)
    assert "started inside a step" in space.last and "name what it needs as inputs" in space.last


def test_a_working_directory_that_no_longer_exists_is_told(space: Space) -> None:
    gone = space.root / "gone"
    gone.mkdir()
    words = f'rmdir "{gone}"; exec "{sys.executable}" -m labmake.cli.entry build'
    done = subprocess.run(["bash", "-c", words], cwd=gone, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "the working directory no longer exists" in done.stderr
    assert "Traceback" not in done.stderr
