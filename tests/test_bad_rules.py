"""Rules, plans and sources that cannot be: told in three parts with file and line, and the rest is built."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from space import EXPERIMENT, Space
from told import told

SCRIPT = f"scripts/{EXPERIMENT}/script.py"
OTHER = 'rule("data/other.txt", run=sh("echo other > {out}"))\n'
"""A sound rule on the first line of a rule file, which is line 3: two lines of imports stand above it."""


# Which rule makes it. ----------------------------------------------------------------------------------------------


def test_no_rule_for_a_target_shows_the_nearest_patterns_with_their_place(space: Space) -> None:
    space.write("script.py", 'rule("data/fits/{fold}.txt", run=sh("x"))\n' + OTHER)
    text = told(space, "no rule makes data/fts.txt", f"{SCRIPT}:3", command=("data/fts.txt",))
    assert text.index("data/fits/{fold}.txt") < text.index("data/other.txt")


def test_no_rule_for_an_input_says_who_needs_it_and_the_rest_is_built(space: Space) -> None:
    space.write("script.py", OTHER + 'rule("data/b.txt", x="data/c.txt", run=sh("cat {x} > {out}"))\n')
    told(space, "no rule makes data/c.txt", "nearest", f"needed by  data/b.txt   {SCRIPT}:4")
    assert space.ran == ["data/other.txt"]


def test_two_rules_for_one_target_are_both_named_with_file_and_line(space: Space) -> None:
    space.write("script.py", OTHER + OTHER)
    told(space, "two rules make data/other.txt", f"{SCRIPT}:3", f"{SCRIPT}:4")


def test_two_patterns_that_are_equally_specific_are_both_named(space: Space) -> None:
    space.write("script.py", 'rule("data/{x}-b.txt", run=sh("x"))\nrule("data/a-{y}.txt", run=sh("x"))\n')
    command = ("data/a-b.txt",)
    told(space, "two rules make data/a-b.txt", "data/{x}-b.txt", f"{SCRIPT}:3", f"{SCRIPT}:4", command=command)


def test_a_second_rule_in_a_folder_target_is_refused_with_both_places(space: Space) -> None:
    space.write("script.py", 'rule("data/f/", run=sh("x"))\nrule("data/f/b.txt", run=sh("x"))\n')
    told(space, "data/f/b.txt lies in a folder target", f"{SCRIPT}:3", f"{SCRIPT}:4")


def test_a_cycle_is_shown_as_a_path_and_the_rest_is_built(space: Space) -> None:
    ring = "".join(
        f'rule("data/{a}.txt", x="data/{b}.txt", run=sh("cat {{x}} > {{out}}"))\n' for a, b in ("xy", "yz", "zx", "wx")
    )
    space.write("script.py", OTHER + ring)
    told(space, "needs itself", "data/x.txt → data/y.txt → data/z.txt → data/x.txt", f"{SCRIPT}:4")
    assert space.ran == ["data/other.txt"]


def test_a_plan_that_reads_its_own_target_is_a_cycle(space: Space) -> None:
    space.write("script.py", OTHER + PLAN.format(body='read_text("data/p.txt")'))
    told(space, "needs itself", "data/p.txt → data/p.txt")
    assert space.ran == ["data/other.txt"]


def test_two_cycles_are_both_told(space: Space) -> None:
    rings = "".join(f'rule("data/{a}.txt", x="data/{b}.txt", run=sh("x"))\n' for a, b in ("ab", "ba", "cd", "dc"))
    space.write("script.py", rings)
    assert told(space).count("needs itself") == 2


# What an input names. ----------------------------------------------------------------------------------------------


def test_a_missing_source_file_shows_the_nearest_and_who_needs_it(space: Space) -> None:
    space.write("./input.txt", "1")
    space.write("script.py", OTHER + 'rule("data/a.txt", x="./inptu.txt", run=sh("cp {x} {out}"))\n')
    told(space, "inptu.txt", f"nearest    scripts/{EXPERIMENT}/input.txt", f"needed by  data/a.txt   {SCRIPT}:4")
    assert space.ran == ["data/other.txt"]


def test_an_absolute_path_is_from_the_root_and_the_error_points_to_source(space: Space) -> None:
    space.write("script.py", 'rule("data/a.txt", x="/etc/passwd", run=sh("cp {x} {out}"))\n')
    told(space, "there is no file etc/passwd", "source(")


def test_a_missing_key_of_a_slice_shows_the_nearest_keys(space: Space) -> None:
    space.write("./k.json", '{"three": 1, "two": 2}')
    space.write("script.py", OTHER + 'rule("data/a.txt", x="./k.json#thre", run=sh("cp {x} {out}"))\n')
    told(space, "no element thre", "nearest    three", f"needed by  data/a.txt   {SCRIPT}:4")
    assert space.ran == ["data/other.txt"]


EACH = """
rule("data/f-{{k}}.txt", run=sh("echo > {{out}}"))
rule("data/all.txt", x=each("data/f-{{k}}.txt", k="{file}"), run=sh("cat {{x}} > {{out}}"))
"""


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("./k.json", '["a", "b", "a"]', "a key is twice"),
        ("./k.json", '{"a": 1, "a": 2}', "a key is twice"),
        ("./k.csv", "k,v\na,1\na,2\n", "a key is twice"),
        ("./k.json", '["a/b"]', "it has a slash"),
        ("./k.json", '["a.json#b"]', "read as a slice"),
        ("./k.json", '[""]', "it is empty"),
        ("./k.json", '{"a": 1,\n"b" 2}', "k.json:2"),
        ("./k.json", "", "not JSON"),
        ("./k.json", "3", "k.json"),
        ("./k.csv", "a,b\n1\n", "k.csv:2"),
        ("./k.txt", "a\n", "cannot be sliced"),
        ("./k.json", b"\xff", "k.json"),
    ],
)
def test_keys_that_cannot_be_are_told_with_the_file_and_who_needs_them(
    space: Space, file: str, content: str | bytes, words: str
) -> None:
    space.write(file, content)
    space.write("script.py", OTHER + EACH.format(file=file))
    told(space, words, "needed by  data/all.txt")
    assert space.ran == ["data/other.txt"]


# Rule files that cannot be read. -----------------------------------------------------------------------------------


def test_a_syntax_error_shows_file_line_and_a_caret_below_the_fault(space: Space) -> None:
    space.write("script.py", OTHER + "def f(:\n    pass\n")
    text = told(space, f"{SCRIPT}:4", "invalid syntax", "def f(:")
    code, caret = text.split("def f(:")
    assert caret.split("\n")[1].index("^") == len(code.split("\n")[-1]) + 6


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x = '\0'", b"# coding: nosuch\n", b"x = " + b"(" * 500])
def test_a_rule_file_that_is_no_text_is_no_valid_python(space: Space, content: bytes) -> None:
    space.write("script.py", content)
    told(space, "no valid Python", SCRIPT)


def test_an_exception_shows_the_users_own_frames_and_the_line_to_correct(space: Space) -> None:
    space.write("script.py", OTHER + "def helper():\n    return 1 / 0\n\nhelper()\n")
    text = told(space, "ZeroDivisionError", f"{SCRIPT}:7 in <module>", f"{SCRIPT}:5 in helper", f"correct {SCRIPT}:5")
    assert "site-packages" not in text and "loading.py" not in text


def test_an_exception_in_rules_py_names_its_line(space: Space) -> None:
    space.write("rules.py", OTHER + "undefined_name\n")
    space.write("script.py", OTHER)
    told(space, "rules.py failed", "undefined_name", "correct rules.py:4")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("def f():\n    return 1 / 0\n", ("ZeroDivisionError", "src/model.py:2 in f", "correct src/model.py:2")),
        ("import nosuchmodule\n", ("nosuchmodule", "correct src/model.py:1")),
        ("def f(:\n", ("SyntaxError", "def f(:", "correct src/model.py:1")),
    ],
)
def test_an_error_in_an_imported_module_names_its_line_from_any_folder(
    space: Space, module: str, words: tuple[str, ...]
) -> None:
    space.write("src/model.py", module)
    space.write("script.py", OTHER + "import model\nmodel.f()\n")
    told(space, f"{SCRIPT}:5", *words)
    space.run("build", cwd=space.root / "scripts" / EXPERIMENT, code=2)
    assert all(word in space.last for word in words), space.last.text
    assert str(space.root) not in space.last.text


def test_an_endless_recursion_is_shown_by_its_ends(space: Space) -> None:
    space.write("script.py", OTHER + "def f(n):\n    return f(n + 1)\n\nf(0)\n")
    text = told(space, "RecursionError", "more", f"{SCRIPT}:7")
    assert len(text.splitlines()) < 25


@pytest.mark.parametrize("code", ["0", "3", "'bye'"])
def test_a_rule_file_that_ends_the_process_is_named_with_the_line(space: Space, code: str) -> None:
    space.write("script.py", OTHER + f"import sys\nsys.exit({code})\n")
    told(space, "ended the process", f"{SCRIPT}:5")


# Rules that cannot be. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        # outputs
        ("rule('../../../../x.txt', run=sh('x'))", ("leaves the project",)),
        ("rule('data/../../../x.txt', run=sh('x'))", ("outside of generated/",)),
        ("rule('data/../../../other/assets/x.txt', run=sh('x'))", ("outside of generated/",)),
        ("rule('/src/x.txt', run=sh('x'))", ("outside of generated/", "src/x.txt")),
        ("rule('./x.txt', run=sh('x'))", ("outside of generated/",)),
        ("rule('/etc/passwd', run=sh('x'))", ("outside of generated/",)),
        ("rule(run=sh('x'))", ("names its outputs first",)),
        ("rule(3, run=sh('x'))", ("names its outputs first",)),
        ("rule({}, run=sh('x'))", ("names its outputs first",)),
        ("rule({'x': 3}, run=sh('x'))", ("names its outputs first",)),
        ("rule(['data/x.txt'], run=sh('x'))", ("names its outputs first",)),
        # names
        ("rule('data/b.txt', memory='data/memory.csv', run=sh('x'))", ("memory=", "reserved word", "inputs={'memory'")),
        ("rule('data/b.txt', cpus='many', run=sh('x'))", ("cpus= takes a number",)),
        ("rule('data/b.txt', time='soon', run=sh('x'))", ("time= takes", "30m")),
        ("rule('data/b.txt', gpus=-1, run=sh('x'))", ("gpus=",)),
        ("rule('data/b.txt', batch=0, run=sh('x'))", ("batch= takes",)),
        ("rule('data/{k}.txt', batch=500, run=sh('x'))", ("{batch}",)),
        ("rule('data/b.txt', executor='slurm', run=sh('x'))", ("executor= is reserved",)),
        ("rule('data/b.txt', x='data/a.txt', run=sh('x', x=1))", ("x is an input and a parameter",)),
        ("rule('data/b-{x}.txt', x='data/a.txt', run=sh('x'))", ("x is an input and a wildcard",)),
        ("rule({'x': 'data/x', 'y': 'data/y'}, x='data/a.txt', run=sh('x'))", ("x is an output and an input",)),
        ("rule('data/b.txt', run=sh('x'), inputs={'a b': 'data/a.txt'})", ("'a b' is no name",)),
        # parameters and inputs
        ("rule('data/b.txt', run=sh('x', s={1, 2}))", ("the parameter s is no JSON value", "set")),
        ("rule('data/b.txt', run=sh('x', s=[1, object()]))", ("the parameter s[1] is no JSON value",)),
        ("rule('data/b.txt', run=sh('x', s=float('nan')))", ("the parameter s is no JSON value",)),
        ("rule('data/b.txt', x=object(), run=sh('x'))", ("the input x is no path",)),
        ("rule('data/b.txt', x=['data/a.txt', 3], run=sh('x'))", ("the input x is no path",)),
        ("rule('data/b.txt', x='', run=sh('x'))", ("the input x is no path",)),
        ("rule('data/b.txt', x='../../../../x', run=sh('x'))", ("leaves the project",)),
        # wildcards
        ("rule('data/b-{x}.txt', 'data/c.txt', run=sh('x'))", ("must have the same wildcards",)),
        ("rule('data/b.txt', x='data/{x}.txt', run=sh('x'))", ("uses {x}, which is no wildcard", "each(")),
        ("rule('data/{x:[0-9}.txt', run=sh('x'))", ("malformed", "{x:[0-9}", "[0-9]+")),
        ("rule('data/{x:*}.txt', run=sh('x'))", ("malformed",)),
        ("rule('data/{x.txt', run=sh('x'))", ("not closed",)),
        ("rule('data/{}.txt', run=sh('x'))", ("a wildcard is written {name}",)),
        ("rule('data/b.txt', x=each('data/a.txt', k='./k.json'), run=sh('x'))", ("{k}, which its pattern does not",)),
        ("rule('data/b.txt', x=each('data/{k}.txt'), run=sh('x'))", ("needs the values",)),
        ("rule('data/b.txt', x=each('data/{k}-{j}.txt', k=['1']), run=sh('x'))", ("uses {j}",)),
        ("rule('data/b.txt', x=each('data/{k}.txt', k=3), run=sh('x'))", ("cannot take the values of k",)),
        ("rule('data/b.txt', x=each('data/{k}.txt', k=['a', 'a']), run=sh('x'))", ("a value twice",)),
        ("rule('data/b.txt', x=each('data/{k}.txt', k=['a/b']), run=sh('x'))", ("cannot be in a path",)),
        ("rule('data/b.txt', x=find('data/{x}.txt'), run=sh('x'))", ("no folder target", "each(")),
        # recipes
        ("rule('data/b.txt')", ("a rule has no recipe",)),
        ("plan('data/b.txt')", ("a rule has no recipe",)),
        ("rule('data/b.txt', run='echo')", ("run= is no recipe",)),
        ("rule('data/b.txt', run=sh(3))", ("sh() takes a text",)),
        ("rule('data/b.txt', run=py(3))", ("py() takes a text",)),
        ("rule('data/b.txt', run=py('src/x.R:f'))", ("names no Python file or function",)),
        ("rule('data/b.txt', run=script('src/x.R'))", ("interpreter",)),
        ("rule('data/b.txt')(lambda: 'x')", ("top level",)),
        ("rule('data/b.txt', run=sh('cat {xx} > {out}'))", ("{xx}, which the rule does not have", "{{xx}}")),
        ("rule('data/b.txt', code=['src/nope.py'], run=sh('x'))", ("src/nope.py",)),
        ("rule('data/b.txt', environment='some', run=sh('x'))", ("environment= takes",)),
        # sources
        ("source('data/x.csv', 'ftp://example.org/x.csv')", ("cannot fetch ftp://", "in a step")),
        ("source('data/x.csv', 'data-raw/x.csv')", ("the source of data/x.csv is not there", "data-raw/x.csv")),
        ("source('data/x.csv', 'package:nosuchpkg/x.csv')", ("nosuchpkg is not installed",)),
        ("source('data/x.csv', 'scripts')", ("is a folder", "closing /")),
        ("source('data/x/', 'scripts')", ("closing /",)),
        ("source('data/{x}.csv', 'scripts/x')", ("no wildcards",)),
        ("source('data/x.csv', 'x.csv', query='select 1')", ("query= is no option",)),
        # reading
        ("read_json('data/a.json')", ("outside of a plan", "@plan")),
    ],
)
def test_a_rule_that_cannot_be_is_told_with_its_line(space: Space, line: str, words: tuple[str, ...]) -> None:
    space.write("script.py", OTHER + line + "\n")
    told(space, f"{SCRIPT}:4", *words)


def test_a_wildcard_that_only_an_input_has_is_told_when_the_target_is_asked_for(space: Space) -> None:
    space.write("script.py", OTHER + "rule('data/b-{y}.txt', x='data/{x}.txt', run=sh('x'))\n")
    told(space, "uses {x}, which is no wildcard of the output", f"{SCRIPT}:4", command=("data/b-1.txt",))


def test_a_reserved_word_can_be_the_name_of_an_input_all_the_same(space: Space) -> None:
    space.write(
        "script.py", OTHER + "rule('data/b.txt', inputs={'memory': 'data/other.txt'}, run=sh('cp {memory} {out}'))"
    )
    space.build()
    assert space.read("data/b.txt") == "other\n"


def test_a_group_of_a_target_that_nothing_makes_is_refused(space: Space) -> None:
    space.write("script.py", OTHER + "group('paper', 'data/zzz.txt')\n")
    told(space, "no rule makes data/zzz.txt", command=("paper",))


# Plans that cannot be. ---------------------------------------------------------------------------------------------

PLAN = """
@plan("data/p.txt")
def p():
    {body}
    return step(run=sh("echo > {{out}}"))
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('open("/etc/hostname").read()', ("a plan opens a file", "/etc/hostname")),
        ('__import__("pathlib").Path("x.txt").read_text()', ("a plan opens a file", "x.txt")),
        ('__import__("os").listdir(".")', ("a plan lists a folder",)),
        ('__import__("subprocess").run(["ls"])', ("a plan starts a process", "ls")),
        ('__import__("os").system("ls")', ("a plan starts a process", "ls")),
        ('__import__("os").fork()', ("a plan starts a process",)),
        ('__import__("socket").socket().connect(("127.0.0.1", 1))', ("a plan connects to a server", "127.0.0.1:1")),
    ],
)
def test_a_plan_that_looks_past_labmake_is_refused_with_its_line(
    space: Space, body: str, words: tuple[str, ...]
) -> None:
    space.write("script.py", OTHER + PLAN.format(body=body))
    told(space, f"{SCRIPT}:7", "read_json, read_csv", *words)
    assert space.ran == ["data/other.txt"]


def test_a_plan_is_refused_what_it_opens_even_if_it_catches_the_error(space: Space) -> None:
    space.write("script.py", OTHER + PLAN.format(body="try:\n        open('x')\n    except Exception:\n        pass"))
    told(space, "a plan opens a file")


def test_a_bare_except_around_a_read_does_no_harm(space: Space) -> None:
    body = "try:\n        text = read_text('data/other.txt')\n    except:\n        text = 'caught'"
    plan = PLAN.format(body=body).replace('"echo > {out}"', '"echo got {text} > {out}", text=text.strip()')
    space.write("script.py", OTHER + plan)
    space.build()
    assert space.read("data/p.txt") == "got other\n"


def test_a_plan_that_asks_something_else_each_time_is_not_repeatable(space: Space) -> None:
    script = 'rule("data/b.txt", run=sh("echo b > {out}"))\nasked = []\n'
    body = 'asked.append(1)\n    read_text("data/other.txt" if len(asked) % 2 else "data/b.txt")'
    space.write("script.py", OTHER + script + PLAN.format(body=body))
    told(space, "not repeatable", "first  data/other.txt", "then   data/b.txt", f"{SCRIPT}:7", "no random numbers")
    assert not space.exists("data/p.txt")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ('@plan("data/p.txt")\ndef p():\n    pass\n', ("returned no step", "None", "return step(")),
        ('@plan("data/p.txt")\ndef p():\n    return sh("echo")\n', ("returned no step",)),
        ('@plan("data/p.txt")\ndef p(m):\n    pass\n', ("asks for m, which is no wildcard", "def p()")),
        ('@plan("data/p.txt")\ndef p():\n    return step(run="echo")\n', ("run= is no recipe",)),
        ('@plan("data/p.txt")\ndef p():\n    return step(run=sh("x"), memory="lots")\n', ("memory= takes an amount",)),
        ('@plan("data/p.txt")\ndef p():\n    return step(run=sh("{x}"))\n', ("{x}, which the rule does not have",)),
        ('@plan("data/p.txt")\ndef p():\n    raise ValueError("no")\n', ("ValueError: no", f"{SCRIPT}:6 in p")),
        ('@plan("data/p.txt")\ndef p():\n    raise SystemExit(4)\n', ("SystemExit: 4", f"correct {SCRIPT}:6")),
        ('@plan("data/p.txt")\ndef p():\n    return p()\n', ("RecursionError", "more")),
        ('@plan("data/p.txt")\ndef p():\n    read_json("data/other.txt")\n', ("data/other.txt:1", "is not JSON")),
        ('@plan("data/p.txt")\ndef p():\n    read_json("data/no.json")\n', ("no rule makes data/no.json", "needed by")),
        ('@plan("data/p.txt", cpu=3)\ndef p():\n    pass\n', ("cpu= is no option", "cpus")),
    ],
)
def test_a_plan_that_cannot_be_is_told_with_its_line(space: Space, plan: str, words: tuple[str, ...]) -> None:
    space.write("script.py", OTHER + plan)
    told(space, f"{SCRIPT}:4", *words)
    assert not space.exists("data/p.txt")


# Data from outside. ------------------------------------------------------------------------------------------------

SOURCE = 'source("data/x.csv", "src/x.csv")\nrule("data/y.csv", x="data/x.csv", run=sh("cat {x} > {out}"))\n'


def test_a_source_that_changed_stops_the_build_before_it_computes(space: Space) -> None:
    space.write("src/x.csv", "1\n")
    space.write("script.py", SOURCE)
    space.build()
    pins = space.read("hashes.txt")
    space.write("src/x.csv", "2\n")
    space.write("script.py", SOURCE + OTHER)
    hashes = [hashlib.sha256(text).hexdigest() for text in (b"1\n", b"2\n")]
    told(space, f"recorded   {hashes[0]}", f"found      {hashes[1]}", f"{SCRIPT}:3", "hashes.txt", code=4)
    assert space.ran == [] and space.read("data/x.csv") == "1\n" and space.read("hashes.txt") == pins


@pytest.mark.parametrize("line", [b"garbage\n", b"\xff\xfe\n", b"0123  data/x.csv\n"])
def test_a_malformed_line_of_hashes_txt_is_shown_and_nothing_is_overwritten(space: Space, line: bytes) -> None:
    space.write("src/x.csv", "1\n")
    space.write("script.py", SOURCE)
    space.build()
    pins = space.path("hashes.txt").read_bytes() + line
    space.write("hashes.txt", pins)
    number = pins.count(b"\n")
    told(space, f"hashes.txt:{number}", "sha256sum")
    assert space.path("hashes.txt").read_bytes() == pins


def test_outside_of_any_project_the_error_names_the_folder_and_init(space: Space, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    space.run("build", cwd=elsewhere, code=2)
    assert "no labmake project" in space.last and str(elsewhere) in space.last and "labmake init" in space.last
