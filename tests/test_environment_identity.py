"""Which edits of a Python file change its identity: all that may change a result, and few others."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labmake.environment.code_identity import identity
from labmake.environment.code_python import analyse
from labmake.model import digest_of

BASE = '''
"""Fit a model."""
import os
from labmake import group, plan, py, rule, source

WINDOW = 30  # days

source("data/raw.csv", "https://example.org/raw.csv")
rule("data/features.csv", raw="data/raw.csv", run=py("model:fit", window=WINDOW))

def fit(raw, window=1):
    """Return the fit."""
    # the heart
    total = 1 + window * -0.0
    return {"total": total, "raw": [raw]}

@rule("figures/{plot}.svg", results="data/results.csv")
def figure(results, plot):
    return results.plot(plot)

@plan("models/{n}/")
def trial(n):
    return n

class Model:
    """A model."""
    def predict(self, x):
        """The prediction."""
        return x
'''


def identity_of(text: str, sees: int = 0, imported: bool = False) -> str:
    source = textwrap.dedent(text).encode()
    facts = analyse(source, "src/model.py")["facts"]
    return identity(facts, digest_of(source), max(sees, facts["sees"]), imported)


SAME = [
    ("a comment", "# the heart", "# the soul"),
    ("a comment at the end of a line", "# days", "# calendar days"),
    ("blank lines", "    # the heart\n", "\n\n\n"),
    ("spaces", "1 + window * -0.0", "1+window*-0.0"),
    ("needless parentheses", "return results.plot(plot)", "return (results.plot(plot))"),
    ("quotes", '{"total": total', "{'total': total"),
    ("how a number is written", "WINDOW = 30", "WINDOW = 0x1e"),
    ("a function's docstring", '"""Return the fit."""', '"""Return the best fit."""'),
    ("no docstring", '    """Return the fit."""\n', ""),
    ("the module's docstring", '"""Fit a model."""', '"""Fit a linear model."""'),
    ("a class's docstring", '"""A model."""', '"""A linear model."""'),
    ("a method's docstring", '"""The prediction."""', ""),
    ("a rule", 'rule("data/features.csv", raw="data/raw.csv"', 'rule("data/features2.csv", raw="data/raw2.csv"'),
    ("a rule more", "def fit", 'rule("x", run=py("model:fit"), n=[str(i) for i in range(3)])\n\ndef fit'),
    ("a group", "def fit", 'group("paper", "figures/a.svg")\n\ndef fit'),
    ("a source", "https://example.org/raw.csv", "https://example.org/raw2.csv"),
    ("the decorator @rule", 'results="data/results.csv"', 'results="data/others.csv"'),
    ("a plan's body", "def trial(n):\n    return n", "def trial(n):\n    return n + 1"),
    ("a plan's pattern", '"models/{n}/"', '"models/{n}.json"'),
    ("the import of labmake", "import group, plan", "import each, group, plan"),
]

OTHER = [
    ("a constant", "WINDOW = 30", "WINDOW = 31"),
    ("an integer that becomes a float", "1 + window", "1.0 + window"),
    ("an integer that becomes a bool", "1 + window", "True + window"),
    ("the sign of zero", "-0.0", "0.0"),
    ("text that becomes bytes", '"total": total', 'b"total": total'),
    ("an operator", "window * -0.0", "window ** -0.0"),
    ("a default", "window=1", "window=2"),
    ("a parameter's name", "def fit(raw, window=1)", "def fit(raw, *, window=1)"),
    ("the body of a function with @rule", "results.plot(plot)", "results.hist(plot)"),
    ("the name of a function with @rule", "def figure(", "def plot_figure("),
    ("a decorator more", "def fit(", "@os.register\ndef fit("),
    ("a future import", '"""Fit a model."""', "from __future__ import annotations"),
    ("an import under another name", "import os", "import os as system"),
    ("a rule's argument with an effect", "window=WINDOW))", "window=os.setup(2)))"),
    ("a rule's argument that binds a name", "window=WINDOW))", "window=(WINDOW := 3)))"),
    ("a string that is no docstring", "return {", '"text"\n    return {'),
    ("a statement with an effect", "class Model:", 'os.environ["A"] = "b"\n\nclass Model:'),
    ("a class's base", "class Model:", "class Model(dict):"),
]


@pytest.mark.parametrize(("before", "after"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_an_edit_that_cannot_change_a_result_keeps_the_identity(before: str, after: str) -> None:
    assert before in BASE
    assert identity_of(BASE.replace(before, after, 1)) == identity_of(BASE)


@pytest.mark.parametrize(("before", "after"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER])
def test_an_edit_that_may_change_a_result_changes_the_identity(before: str, after: str) -> None:
    assert before in BASE
    assert identity_of(BASE.replace(before, after, 1)) != identity_of(BASE)


@pytest.mark.parametrize(
    ("usage", "edit", "by"),
    [
        ("print(fit.__doc__)", "docstring", "its own docstrings"),
        ("import docopt", "docstring", "docstrings as a command line"),
        ('getattr(fit, "__doc__")', "docstring", "docstrings by name"),
        ("chat(tools=[fit])", "docstring", "docstrings as a model's tools"),
        ("import inspect\ninspect.getsource(fit)", "comment", "its source"),
        ("open(__file__)", "comment", "its own file"),
        ('exec("fit(1)")', "comment", "anything, by exec"),
        ("globals()", "comment", "its names"),
        ("import cloudpickle", "comment", "line numbers, by cloudpickle"),
        ("import inspect\ninspect.stack()", "comment", "line numbers, by the stack"),
        ('open("src/model.py").read()', "comment", "a Python file as text"),
    ],
)
def test_what_a_module_reads_of_itself_counts(usage: str, edit: str, by: str) -> None:
    before, after = {"docstring": ("Return the fit.", "Return it."), "comment": ("# the heart", "# the soul")}[edit]
    text = BASE + f"\n{usage}\n"
    assert identity_of(text.replace(before, after)) != identity_of(text), by


def test_methods_named_eval_or_compile_do_not_make_a_module_opaque() -> None:
    text = BASE + '\nimport re\nre.compile("a")\nModel().eval()\n'
    assert identity_of(text.replace("# the heart", "")) == identity_of(text)


@pytest.mark.parametrize("head", ["class Sentiment(Signature):", "@tool\nclass Sentiment:", "@tool\ndef sentiment():"])
def test_a_docstring_that_a_base_class_or_decorator_may_read_counts(head: str) -> None:
    text = f'from lm import Signature, tool\n\n{head}\n    """{{}}"""\n'
    assert identity_of(text.format("Is it good?")) != identity_of(text.format("Is it bad?"))


@pytest.mark.parametrize("head", ["class A(Exception):", "class A(abc.ABC):", "class A:\n  @property\n  def b(self):"])
def test_a_docstring_that_nothing_reads_does_not_count(head: str) -> None:
    text = f'{head}\n    """{{}}"""\n    x = 1\n'
    assert identity_of(text.format("one")) == identity_of(text.format("two"))


def test_docstrings_count_when_another_module_of_the_closure_reads_docstrings() -> None:
    edited = BASE.replace("Return the fit.", "Return it.")
    assert identity_of(BASE, sees=1) != identity_of(edited, sees=1)
    assert identity_of(BASE, sees=1) == identity_of(BASE.replace("# the heart", ""), sees=1)


def test_a_plan_function_counts_when_another_module_may_import_it() -> None:
    edited = BASE.replace("def trial(n):\n    return n", "def trial(n):\n    return n + 1")
    assert identity_of(BASE, imported=True) != identity_of(edited, imported=True)


def test_a_plan_function_counts_when_the_module_uses_it() -> None:
    text = BASE + "\ndef twice(n):\n    return trial(trial(n))\n"
    assert identity_of(text) != identity_of(text.replace("return n\n", "return n + 1\n"))


@pytest.mark.parametrize(
    "text",
    [
        'import labmake\nlabmake.rule("{}")\n',
        'import labmake as lm\nlm.rule("{}")\n',
        'from labmake import rule as r\nr("{}")\n',
        'from labmake import rule\nfor n in range(3):\n    rule("{}")\n',
        'try:\n    from labmake import rule\n    rule("{}")\nexcept ImportError:\n    pass\n',
    ],
)
def test_labmake_is_known_by_any_name_and_in_any_block(text: str) -> None:
    assert identity_of(text.format("a")) == identity_of(text.format("b"))


@pytest.mark.parametrize(
    "text",
    [
        'from other import rule\nrule("{}")\n',
        'from labmake import rule\nfrom other import rule\nrule("{}")\n',
        'from labmake import rule\ndef rule(x):\n    print(x)\nrule("{}")\n',
        'from labmake import rule\nx = rule("{}")\n',
        'from labmake import load\nload("{}")\n',
        'from labmake import rule\ndef f():\n    rule("{}")\n',
    ],
)
def test_a_call_that_may_not_be_labmakes_declaration_counts(text: str) -> None:
    assert identity_of(text.format("a")) != identity_of(text.format("b"))


def test_an_import_of_labmake_counts_where_the_module_uses_it() -> None:
    text = "from labmake import {} as get\ndef f():\n    return get('data/x.csv')\n"
    assert identity_of(text.format("load")) != identity_of(text.format("read_csv"))


@pytest.mark.parametrize("source", ["x = 0x" + "f" * 5000, "x = " + "+".join(["a"] * 900)])
def test_a_module_whose_tree_has_no_text_is_identified_at_least_by_its_bytes(source: str) -> None:
    assert identity_of(source) != identity_of(source.replace("x", "y", 1))


@settings(deadline=None)
@given(
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(), st.binary())
)
def test_equal_constants_of_other_types_are_told_apart(value: object) -> None:
    for other in (repr(str(value)), repr(1), repr(True), repr(1.0), repr(b"1"), repr("1")):
        same = repr(value) == other
        assert (identity_of(f"x = {value!r}") == identity_of(f"x = {other}")) is same


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["# c\n", "\n", "x = 1\n", "def f(): pass\n", '"""d"""\n', "y = [1,\n 2]\n"]), max_size=8)
)
def test_identity_ignores_comments_and_blank_lines_and_nothing_else(lines: list[str]) -> None:
    silent = {"# c\n", "\n"}
    bare = [line for line in lines if line not in silent]
    assert identity_of("".join(lines)) == identity_of("".join(bare))
    if bare and bare[-1] != '"""d"""\n':
        assert identity_of("".join(lines)) != identity_of("".join(bare[:-1]))
