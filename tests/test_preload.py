"""What a step surely imports, read from its text: everything above the first statement that does more than define."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from labmake.executors.forking import FORKS, is_forkable
from labmake.executors.preload import LARGEST, certain_imports
from labmake.executors.process import PYSTEP


def found(root: Path, text: str, others: dict[str, str] | None = None, function: str = "f") -> list[str]:
    """The modules that the step of `script.py` surely imports, each with the names that are taken from it."""
    for name, content in {"script.py": text, **(others or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    return [".".join([module, *names]) for module, names in certain_imports(str(root), "script.py", function)]


@pytest.mark.parametrize(
    ("text", "imports"),
    [
        ('"""Doc."""\nfrom __future__ import annotations\nimport numpy as np, pandas\nimport a.b', "numpy pandas a.b"),
        ("from a import b as c, d\nfrom e.g import *", "a.b.d e.g.*"),
        ("import a\nx = 1\ny: list[int] = [x, -1, *z]\nw = {k: 'v'}\nimport b", "a b"),
        (
            "import a\ndef g(x=1): print()\nasync def h(): pass\nclass C(a.B):\n  x = 1\n  def m(self): f()\nimport b",
            "a b",
        ),
        ("import a\nfrom pathlib import Path\np = Path('x') / 'y'\nimport b", "a pathlib.Path b"),
        ("from labmake import rule, py\nrule('x', run=py('s.py:f', n=[1, 2]))\nimport b", "labmake.rule.py b"),
        ("import labmake as lm\n@lm.rule('x')\ndef f(): pass\nimport b", "labmake b"),
        ("from labmake import rule\nfor k in (1, 2):\n  rule(f'{k}')\nimport b", "labmake.rule b"),
        (
            "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C: x: int = 1\nimport b",
            "dataclasses.dataclass b",
        ),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import a\nelse:\n  import c\nimport b",
            "typing.TYPE_CHECKING c b",
        ),
        ("if __name__ == '__main__':\n  import a\nimport b", "b"),
        ("f = lambda: os.kill(1, 9)\nimport b", "b"),
        # What stands below a statement that may do more is imported by the step itself.
        ("import os\nos.environ['X'] = '1'\nimport b", "os"),
        ("import os\nos.environ.setdefault('X', '1')\nimport b", "os"),
        ("import matplotlib\nmatplotlib.use('Agg')\nfrom matplotlib import pyplot", "matplotlib"),
        ("import warnings\nwarnings.filterwarnings('ignore')\nimport b", "warnings"),
        ("import a\na.b = 1\nimport b", "a"),
        ("import a\nx = a.make()\nimport b", "a"),
        ("import a\n@a.register\ndef g(): pass\nimport b", "a"),
        ("import a\ndef g(x=a.make()): pass\nimport b", "a"),
        ("import a\nclass C(a.B, x=a.make()): pass\nimport b", "a"),
        ("import a\nclass C:\n  a.make()\nimport b", "a"),
        ("import a\ntry:\n  import c\nexcept ImportError:\n  c = None\nimport b", "a"),
        ("import a\nwith a.b:\n  import c\nimport b", "a"),
        ("import a\nif a.b:\n  import c\nimport b", "a"),
        ("import a\nassert a\nimport b", "a"),
        ("import a\ndel a\nimport b", "a"),
        ("import a\ndef date(): a.b = 1\ndate()\nimport b", "a"),
        ("import a\ndef cache(f): a.b = 1\n@cache\ndef f(): pass\nimport b", "a"),
        ("import a\nx = (lambda: a.b)()\nimport b", "a"),
        ("import a\nx = [y for y in a.make()]\nimport b", "a"),
        ("import a\nx = f'{a.make()}'\nimport b", "a"),
        ("from labmake import rule\nrule('x', n=len(open('y').read()))\nimport b", "labmake.rule"),
        ("from labmake import rule\nfrom a import rule\nrule('x')\nimport b", "labmake.rule a.rule"),
        ("import a\nthis is no Python", ""),
    ],
)
def test_a_module_is_followed_up_to_its_first_effect(tmp_path: Path, text: str, imports: str) -> None:
    assert found(tmp_path, text) == imports.split()


@pytest.mark.parametrize(
    ("text", "others", "imports"),
    [
        ("import a\nimport m\nimport b", {"m.py": "import c"}, "a c b"),
        ("import a\nimport m\nimport b", {"src/m.py": "import c"}, "a c b"),
        ("import a\nimport m\nimport b", {"m.py": "import c\nprint()\nimport d"}, "a c"),
        ("from m import x\nimport b", {"m.py": "import script\nimport c"}, "c b"),
        ("import p.q\nimport b", {"p/__init__.py": "import c", "p/q.py": "import d"}, "c d b"),
        ("from p import x\nimport b", {"p/__init__.py": "import c\nx = 1"}, "c b"),
        ("import m\nx = m.date()\nimport b", {"m.py": "import c"}, "c"),
        ("from m import Path\nx = Path()\nimport b", {"m.py": "import c"}, "c"),
        # Whether a package's name or its module is meant, or a folder hides a package, the text alone does not tell.
        ("from p import q\nimport b", {"p/__init__.py": "import c", "p/q.py": "import d"}, ""),
        ("from p import *\nimport b", {"p/__init__.py": "import c"}, ""),
        ("from n import q\nimport b", {"n/q.py": "import d"}, ""),
        ("from . import m\nimport b", {"m.py": "import c"}, ""),
    ],
)
def test_modules_of_the_project_are_followed_and_never_imported(
    tmp_path: Path, text: str, others: dict[str, str], imports: str
) -> None:
    assert found(tmp_path, text, others) == imports.split()


@pytest.mark.parametrize(
    ("text", "imports"),
    [
        ("import a\ndef f():\n  'doc'\n  import b\n  from c import d\n  x = 1\n  import e", "a b c.d"),
        ("import a\ndef f(): pass\ndef g():\n  import b", "a"),
        ("import a\na.set()\ndef f():\n  import b", "a"),
    ],
)
def test_the_first_statements_of_the_function_count_if_nothing_else_ran(
    tmp_path: Path, text: str, imports: str
) -> None:
    assert found(tmp_path, text) == imports.split()


def test_a_script_runs_what_only_the_main_module_runs(tmp_path: Path) -> None:
    text = "import m\nif __name__ == '__main__':\n  import b\n  b.run()\n"
    assert found(tmp_path, text, {"m.py": "if __name__ == '__main__':\n  import c\n"}, "") == ["b"]


def test_too_much_text_is_not_read(tmp_path: Path) -> None:
    assert found(tmp_path, "import a\nimport m\nimport b", {"m.py": "x = 1\n" * (LARGEST // 6 + 1)}) == ["a"]


@pytest.mark.skipif(not FORKS, reason="steps are forked on Linux only")
def test_steps_with_a_gpu_secrets_a_wrapper_or_a_relative_path_start_afresh() -> None:
    job = {"command": list(PYSTEP), "gpus": (), "env": {"LABMAKE_SEED": "1"}}
    assert is_forkable(job, {}) and is_forkable(job, {"PYTHONPATH": "/a:/b"})
    assert not is_forkable({**job, "gpus": ("0",)}, {})
    assert not is_forkable({**job, "env": {"LABMAKE_SEED": "1", "PGPASSWORD": "secret"}}, {})
    assert not is_forkable({**job, "command": ["nix", "develop", "-c", *PYSTEP]}, {})
    assert not is_forkable({**job, "command": ["bash", "-c", "true"]}, {})
    assert not is_forkable(job, {"PYTHONPATH": "lib"})
