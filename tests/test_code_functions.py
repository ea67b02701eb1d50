"""Which edits of a project's Python change the identity of a function, and which do not: a table of edits.

`must`: the edit may change what the step gives. `not`: it cannot, and the step must not run again. `may`: it cannot, and
labmake is allowed not to know that. The function is `run` in src/step.py.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from labmake.environment.code_files import CodeReader
from labmake.model import digest_of

STEP = "src/step.py"


class Row(NamedTuple):
    """An edit: what it is, its verdict, the files before it, and in which of them which text becomes which."""

    what: str
    verdict: str
    files: dict[str, str]
    before: str
    after: str
    file: str = STEP


def identity(root: Path, files: dict[str, str], name: str = "run") -> tuple[tuple[str, str], ...]:
    """What identifies a function of src/step.py."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text).lstrip("\n"))
    memo: dict[str, Any] = {}
    reader = CodeReader(root, lambda path: digest_of((root / path).read_bytes()), memo, [])
    closure = reader.function(STEP, "", name)
    again = CodeReader(root, lambda path: digest_of((root / path).read_bytes()), memo, []).function(STEP, "", name)
    assert again == closure  # what was remembered is what was found
    return tuple((file.path, file.identity) for file in closure.files if file.identity)


def edited(files: dict[str, str], file: str, before: str, after: str) -> dict[str, str]:
    assert files[file].count(before) == 1, f"{before!r} is not once in {file}"
    return {**files, file: files[file].replace(before, after)}


def step(text: str, **modules: str) -> dict[str, str]:
    """The files of a project: src/step.py, and others by name, `pkg__init` for src/pkg/__init__.py."""
    found = {STEP: text}
    for name, body in modules.items():
        path = name.replace("__init", "/__init__").replace("__", "/") if "__" in name else name
        path = path.replace("//init/", "/__init__")
        found[f"src/{path}.py"] = body
    return found


TWO = step(
    """
    import math
    SIZE = 3
    SCALE = SIZE * 2
    OTHER = 1
    def helper(x):
        return x * SCALE
    def run(x):
        # a comment
        return helper(x)
    def plot(x):
        import matplotlib
        return x + OTHER
    """
)

A = "from a import f as g\ndef run(x):\n    return g(x)\n"
ROWS = [
    # --- one file
    Row("the function itself", "must", TWO, "return helper(x)", "return helper(x) + 1"),
    Row("a function it calls", "must", TWO, "return x * SCALE", "return x + SCALE"),
    Row("a constant used by a constant", "must", TWO, "SIZE = 3", "SIZE = 4"),
    Row("another function", "not", TWO, "return x + OTHER", "return x - OTHER"),
    Row("a constant of another function", "not", TWO, "OTHER = 1", "OTHER = 2"),
    Row("an import that only another function needs", "not", TWO, "import math\n", "import math, json\n"),
    Row("a comment", "not", TWO, "# a comment", "# another"),
    Row("a function more", "not", TWO, "def plot(x)", "def more(): pass\n    def plot(x)"),
    Row("a function less", "not", TWO, "def plot(x):\n        import matplotlib\n        return x + OTHER", ""),
    Row("the order of definitions", "not", TWO, "OTHER = 1\n    def helper(x):\n        return x * SCALE",
        "def helper(x):\n        return x * SCALE\n    OTHER = 1"),
    Row("formatting", "not", TWO, "return helper(x)", "return ( helper (\n            x ))"),
    Row("a builtin that becomes a function of the module", "must",
        step("def run(x):\n    return sum(x)\n# here\n"), "# here", "def sum(x): return 0"),
    Row("a local name that is also a function's", "not",
        step("def table(x):\n    return 1\ndef run(x):\n    table = x\n    return table\n"), "return 1", "return 2"),
    Row("a comprehension's name that is also a function's", "not",
        step("def row(x):\n    return 1\ndef run(x):\n    return [row for row in x]\n"), "return 1", "return 2"),
    Row("a name that a comprehension iterates and binds", "must",
        step("rows = [1]\ndef run(x):\n    return [rows for rows in rows]\n"), "[1]", "[2]"),
    Row("a walrus in a comprehension is the function's", "not",
        step("last = 1\ndef run(x):\n    return [last := y for y in x], last\n"), "last = 1", "last = 2"),
    Row("a walrus at the top", "must",
        step("if (n := 3) > 2:\n    m = 1\ndef run(x):\n    return n\n"), "3", "4"),
    Row("an argument's default", "must", step("N = 1\ndef run(x, n=N):\n    return n\n"), "N = 1", "N = 2"),
    Row("a mutable default", "must", step("N = []\ndef run(x, n=N):\n    return n\n"), "[]", "[1]"),
    Row("an annotation's class", "must",
        step("class T:\n    size = 1\ndef run(x: T):\n    return 1\n"), "size = 1", "size = 2"),
    Row("a string annotation's class", "must",
        step("class T:\n    size = 1\ndef run(x: 'list[T]'):\n    return 1\n"), "size = 1", "size = 2"),
    Row("an alias of a type, by name", "must",
        step("class T:\n    size = 1\nTs = list['T']\ndef run(x: Ts):\n    return 1\n"), "size = 1", "size = 2"),
    Row("a literal type that is a function's name", "not",
        step("from typing import Literal\ndef table():\n    return 1\ndef run(x: Literal['table']):\n    return 1\n"),
        "return 1\ndef run", "return 2\ndef run"),
    Row("a closure", "must", step("N = 1\ndef outer():\n    def inner():\n        return N\n    return inner\n"
                                  "def run(x):\n    return outer()()\n"), "N = 1", "N = 2"),
    Row("a name of the outer function", "not",
        step("N = 1\ndef run(x):\n    N = 2\n    def inner():\n        return N\n    return inner()\n"), "N = 1", "N = 3"),
    Row("nonlocal", "not", step("n = 1\ndef run(x):\n    n = 2\n    def inner():\n        nonlocal n\n        n = 3\n"
                                "    inner()\n    return n\n"), "n = 1", "n = 4"),
    Row("a constant lambda", "must", step("F = lambda x: N\nN = 1\ndef run(x):\n    return F(x)\n"), "N = 1", "N = 2"),
    Row("a lambda that is not used", "not", step("F = lambda x: 1\ndef run(x):\n    return x\n"), "x: 1", "x: 2"),
    Row("a dictionary of functions", "must",
        step("def f(x):\n    return 1\nTABLE = {'f': f}\ndef run(x):\n    return TABLE[x]()\n"), "return 1", "return 2"),
    Row("global", "must",
        step("n = 1\ndef change():\n    global n\n    n = 2\ndef run(x):\n    change()\n    return n\n"), "n = 2", "n = 3"),
    Row("the value before global", "must",
        step("n = 1\ndef change():\n    global n\n    n += 2\ndef run(x):\n    change()\n    return n\n"), "n = 1", "n = 3"),
    Row("global in a function that is not called", "not",
        step("n = 1\ndef change():\n    global n\n    n = 2\ndef run(x):\n    return n\n"), "n = 2", "n = 3"),
    Row("a cache that functions change", "must",
        step("CACHE = {}\ndef put():\n    CACHE[1] = 2\ndef run(x):\n    put()\n    return CACHE\n"),
        "CACHE[1] = 2", "CACHE[1] = 3"),
    Row("a name bound twice, the first", "must", step("n = 1\nm = n\nn = 2\ndef run(x):\n    return m\n"), "n = 1", "n = 3"),
    Row("a name bound twice, in another order", "must",
        step("n = 1\nn = 2\ndef run(x):\n    return n\n"), "n = 1\nn = 2", "n = 2\nn = 1"),
    Row("a value taken between two bindings", "must",
        step("n = 1\nm = n\nn = 2\ndef run(x):\n    return m\n"), "m = n\nn = 2", "n = 2\nm = n"),
    Row("augmented assignment of an alias", "must",
        step("a = [1]\nb = a\nb += [2]\ndef run(x):\n    return a\n"), "[2]", "[3]"),
    Row("a deleted name", "must", step("sum = 1\ndel sum\ndef run(x):\n    return sum(x)\n"), "del sum\n", ""),
    Row("a conditional function", "must",
        step("import sys\nif sys.argv:\n    def f(): return 1\nelse:\n    def f(): return 2\ndef run(x):\n    return f()\n"),
        "return 2", "return 3"),
    Row("a condition that another function needs", "not",
        step("import sys\nif sys.argv:\n    N = 1\nelse:\n    N = 2\ndef run(x):\n    return x\n"), "N = 2", "N = 3"),
    Row("main", "not", step("def run(x):\n    return x\nif __name__ == '__main__':\n    print(run(1))\n"), "run(1)", "run(2)"),
    Row("else of main", "must",
        step("def run(x):\n    return N\nif __name__ == '__main__':\n    N = 1\nelse:\n    N = 2\n"), "N = 2", "N = 3"),
    # --- effects
    Row("a call at the top", "must", step("print('a')\ndef run(x):\n    return x\n"), "'a'", "'b'"),
    Row("a function that is called at the top", "must",
        step("def setup():\n    print(1)\nsetup()\ndef run(x):\n    return x\n"), "print(1)", "print(2)"),
    Row("the order of effects", "must", step("print(1)\nprint(2)\ndef run(x):\n    return x\n"),
        "print(1)\nprint(2)", "print(2)\nprint(1)"),
    Row("a definition that an effect needs, moved over it", "must",
        step("print(max(1, 2))\ndef max(*a):\n    return 0\ndef run(x):\n    return x\n"),
        "print(max(1, 2))\ndef max(*a):\n    return 0\n", "def max(*a):\n    return 0\nprint(max(1, 2))\n"),
    Row("a definition that no effect needs, moved over it", "not",
        step("print(1)\ndef f():\n    return 0\ndef run(x):\n    return f()\n"),
        "print(1)\ndef f():\n    return 0\n", "def f():\n    return 0\nprint(1)\n"),
    Row("a pure call", "not", step("from pathlib import Path\nP = Path('a')\ndef run(x):\n    return x\n"), "'a'", "'b'"),
    Row("a pure call that it uses", "must",
        step("from pathlib import Path\nP = Path('a')\ndef run(x):\n    return P\n"), "'a'", "'b'"),
    Row("a sort with a function of the project", "must",
        step("seen = []\ndef note(x):\n    seen.append(x)\n    return x\nS = sorted([1], key=note)\ndef run(x):\n    return seen\n"),
        "seen.append(x)", "seen.append(2)"),
    Row("a generator of the project's effects", "must",
        step("seen = []\ndef note(x):\n    seen.append(x)\n    return x\nS = [note(x) for x in [1]]\ndef run(x):\n    return seen\n"),
        "[1]", "[2]"),
    Row("an operator of an object of unknown code", "must",
        step("import other\nX = other.make()\nY = X + 1\ndef run(x):\n    return x\n"), "X + 1", "X + 2"),
    Row("an assertion", "must", step("N = 1\nassert N\ndef run(x):\n    return x\n"), "assert N", "assert not N"),
    Row("a decorator that registers", "must",
        step("R = {}\ndef register(f):\n    R[f.__name__] = f\n    return f\n@register\ndef one():\n    return 1\n"
             "def run(x):\n    return R[x]()\n"), "return 1", "return 2"),
    Row("another function with a decorator that registers", "must",
        step("from app import task\n@task\ndef one():\n    return 1\ndef run(x):\n    return x\n"), "return 1", "return 2"),
    Row("numba", "must", step("import numba\n@numba.njit\ndef one():\n    return 1\ndef run(x):\n    return one()\n"),
        "return 1", "return 2"),
    # --- known decorators and calls
    Row("lru_cache", "must", step("from functools import lru_cache\n@lru_cache(None)\ndef f():\n    return 1\n"
                                  "def run(x):\n    return f()\n"), "return 1", "return 2"),
    Row("lru_cache elsewhere", "not", step("from functools import lru_cache\n@lru_cache(None)\ndef f():\n    return 1\n"
                                           "def run(x):\n    return x\n"), "return 1", "return 2"),
    Row("lru_cache of the project", "must",
        step("from functools_ import lru_cache\n@lru_cache\ndef f():\n    return 1\ndef run(x):\n    return x\n",
             functools_="seen = []\ndef lru_cache(f):\n    seen.append(f)\n    return f\n"), "return 1", "return 2"),
    Row("partial", "must", step("from functools import partial\ndef f(y):\n    return y\ng = partial(f, 1)\n"
                                "def run(x):\n    return g()\n"), "return y", "return -y"),
    Row("partial elsewhere", "not", step("from functools import partial\ndef f(y):\n    return y\ng = partial(f, 1)\n"
                                         "def run(x):\n    return x\n"), "return y", "return -y"),
    Row("singledispatch", "must",
        step("from functools import singledispatch\n@singledispatch\ndef show(x):\n    return 0\n"
             "@show.register\ndef _(x: int):\n    return 1\ndef run(x):\n    return show(1)\n"), "return 1", "return 2"),
    Row("singledispatch elsewhere", "not",
        step("from functools import singledispatch\n@singledispatch\ndef show(x):\n    return 0\n"
             "@show.register\ndef _(x: int):\n    return 1\ndef run(x):\n    return x\n"), "return 1", "return 2"),
    Row("singledispatch registered by another module", "must",
        step("import more\nfrom base import show\ndef run(x):\n    return show(1)\n",
             base="from functools import singledispatch\n@singledispatch\ndef show(x):\n    return 0\n",
             more="from base import show\n@show.register(int)\ndef of_int(x):\n    return 1\n"),
        "return 1", "return 2", "src/more.py"),
    Row("a context variable", "must",
        step("from contextvars import ContextVar\nV = ContextVar('V', default=1)\ndef run(x):\n    return V.get()\n"),
        "default=1", "default=2"),
    # --- classes
    Row("a property", "must", step("class C:\n    @property\n    def p(self):\n        return 1\ndef run(x):\n    return C().p\n"),
        "return 1", "return 2"),
    Row("a class that is not used", "not", step("class C:\n    def p(self):\n        return 1\ndef run(x):\n    return x\n"),
        "return 1", "return 2"),
    Row("a base class", "must", step("class B:\n    n = 1\nclass C(B):\n    pass\ndef run(x):\n    return C.n\n"), "n = 1", "n = 2"),
    Row("a function in a class in a function", "must",
        step("N = 1\ndef run(x):\n    class C:\n        def m(self):\n            return N\n    return C().m()\n"), "N = 1", "N = 2"),
    Row("a class's name in its body is the module's", "must",
        step("n = 1\nclass C:\n    n = n\ndef run(x):\n    return C.n\n"), "n = 1", "n = 2"),
    Row("dataclass default", "must",
        step("from dataclasses import dataclass\nN = 1\n@dataclass\nclass C:\n    n: int = N\ndef run(x):\n    return C()\n"),
        "N = 1", "N = 2"),
    Row("dataclass elsewhere", "not",
        step("from dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass C:\n    n: list = field(default_factory=list)\n"
             "    m: int = 1\ndef run(x):\n    return x\n"), "m: int = 1", "m: int = 2"),
    Row("enum", "must", step("from enum import Enum\nclass E(Enum):\n    A = 1\ndef run(x):\n    return E.A\n"), "A = 1", "A = 2"),
    Row("enum elsewhere", "not",
        step("from enum import Enum, auto\nclass E(Enum):\n    A = 1\n    B = auto()\ndef run(x):\n    return x\n"),
        "A = 1", "A = 2"),
    Row("NamedTuple", "must",
        step("from typing import NamedTuple\nclass P(NamedTuple):\n    n: int = 1\ndef run(x):\n    return P()\n"), "n: int = 1", "n: int = 2"),
    Row("NamedTuple elsewhere", "not",
        step("from typing import NamedTuple\nclass P(NamedTuple):\n    n: int = 1\ndef run(x):\n    return x\n"), "n: int = 1", "n: int = 2"),
    Row("metaclass", "must",
        step("seen = []\nclass M(type):\n    def __init__(cls, *a):\n        seen.append(cls.n)\nclass C(metaclass=M):\n    n = 1\n"
             "def run(x):\n    return seen\n"), "n = 1", "n = 2"),
    Row("metaclass of a base", "must",
        step("seen = []\nclass M(type):\n    def __init__(cls, *a):\n        seen.append(cls.n)\nclass B(metaclass=M):\n    n = 0\n"
             "class C(B):\n    n = 1\ndef run(x):\n    return seen\n"), "n = 1", "n = 2"),
    Row("__init_subclass__", "must",
        step("class B:\n    seen = []\n    def __init_subclass__(cls):\n        B.seen.append(cls.n)\nclass C(B):\n    n = 1\n"
             "def run(x):\n    return B.seen\n"), "n = 1", "n = 2"),
    Row("__subclasses__", "must",
        step("class B:\n    pass\nclass C(B):\n    n = 1\ndef run(x):\n    return [c.n for c in B.__subclasses__()]\n"), "n = 1", "n = 2"),
    Row("a class decorator of the project", "must",
        step("seen = []\ndef keep(c):\n    seen.append(c.n)\n    return c\n@keep\nclass C:\n    n = 1\ndef run(x):\n    return seen\n"),
        "n = 1", "n = 2"),
    Row("a descriptor", "must",
        step("class D:\n    def __set_name__(self, o, n):\n        seen.append(1)\nseen = []\nclass C:\n    d = D()\ndef run(x):\n    return seen\n"),
        "seen.append(1)", "seen.append(2)"),
    Row("an enum that runs code", "must",
        step("from enum import Enum\nseen = []\nclass E(Enum):\n    A = 1\n    def __init__(self, v):\n        seen.append(v)\n"
             "def run(x):\n    return seen\n"), "A = 1", "A = 2"),
    Row("a base class of unknown code", "must",
        step("from orm import Base\nclass C(Base):\n    n = 1\ndef run(x):\n    return x\n"), "n = 1", "n = 2"),
    # --- other modules
    Row("from a import b as c", "must", step(A, a="def f(x):\n    return 1\ndef h():\n    return 3\n"), "return 1", "return 2", "src/a.py"),
    Row("another function of an imported module", "not",
        step(A, a="def f(x):\n    return 1\ndef h():\n    return 3\n"), "return 3", "return 4", "src/a.py"),
    Row("an import of another function under the same name", "must",
        step(A, a="def f(x):\n    return 1\ndef h(x):\n    return 3\n"), "import f as g", "import h as g"),
    Row("an attribute of a module", "must", step("import a\ndef run(x):\n    return a.f()\n", a="def f():\n    return N\nN = 1\n"),
        "N = 1", "N = 2", "src/a.py"),
    Row("another attribute of a module", "not", step("import a\ndef run(x):\n    return a.f()\n", a="def f():\n    return 1\nN = 1\n"),
        "N = 1", "N = 2", "src/a.py"),
    Row("a submodule", "must", step("import pkg.sub\ndef run(x):\n    return pkg.sub.f()\n", pkg__init="", pkg__sub="def f():\n    return 1\n"),
        "return 1", "return 2", "src/pkg/sub.py"),
    Row("another function of a submodule", "not",
        step("import pkg.sub as s\ndef run(x):\n    return s.f()\n", pkg__init="", pkg__sub="def f():\n    return 1\ndef g():\n    return 3\n"),
        "return 3", "return 2", "src/pkg/sub.py"),
    Row("__init__ that passes a name on", "must",
        step("from pkg import f\ndef run(x):\n    return f()\n", pkg__init="from .sub import f, g\n", pkg__sub="def f():\n    return 1\ndef g():\n    return 3\n"),
        "return 1", "return 2", "src/pkg/sub.py"),
    Row("what __init__ passes on beside it", "not",
        step("from pkg import f\ndef run(x):\n    return f()\n", pkg__init="from .sub import f, g\n", pkg__sub="def f():\n    return 1\ndef g():\n    return 3\n"),
        "return 3", "return 2", "src/pkg/sub.py"),
    Row("an effect of __init__ above", "must",
        step("from pkg.sub import f\ndef run(x):\n    return f()\n", pkg__init="print(1)\n", pkg__sub="def f():\n    return 1\n"),
        "print(1)", "print(2)", "src/pkg/__init__.py"),
    Row("a relative import", "must",
        step("from pkg.sub import f\ndef run(x):\n    return f()\n", pkg__init="", pkg__sub="from . import low\ndef f():\n    return low.N\n", pkg__low="N = 1\n"),
        "N = 1", "N = 2", "src/pkg/low.py"),
    Row("a star import", "must", step("from a import *\ndef run(x):\n    return f()\n", a="def f():\n    return 1\ndef g():\n    return 3\n"),
        "return 1", "return 2", "src/a.py"),
    Row("a star import, another name", "not", step("from a import *\ndef run(x):\n    return f()\n", a="def f():\n    return 1\ndef g():\n    return 3\n"),
        "return 3", "return 2", "src/a.py"),
    Row("a star import that brings a builtin's name", "must",
        step("from a import *\ndef run(x):\n    return sum(x)\n", a="def f():\n    return 1\n# here\n"), "# here", "def sum(x): return 0", "src/a.py"),
    Row("__all__", "must", step("from a import *\ndef run(x):\n    return sum(x)\n", a="__all__ = ['sum']\ndef sum(x):\n    return 1\n"),
        "['sum']", "[]", "src/a.py"),
    Row("two star imports in another order", "must",
        step("from a import *\nfrom b import *\ndef run(x):\n    return f()\n", a="def f():\n    return 1\n", b="def f():\n    return 2\n"),
        "from a import *\nfrom b import *", "from b import *\nfrom a import *"),
    Row("a conditional import", "must",
        step("import sys\nif sys.argv:\n    import a as m\nelse:\n    import b as m\ndef run(x):\n    return m.f()\n",
             a="def f():\n    return 1\n", b="def f():\n    return 2\n"), "return 2", "return 3", "src/b.py"),
    Row("a conditional import, another function", "not",
        step("import sys\nif sys.argv:\n    import a as m\nelse:\n    import b as m\ndef run(x):\n    return m.f()\n",
             a="def f():\n    return 1\n", b="def f():\n    return 2\ndef g():\n    return 3\n"), "return 3", "return 4", "src/b.py"),
    Row("except ImportError", "must",
        step("try:\n    from fast import f\nexcept ImportError:\n    from slow import f\ndef run(x):\n    return f()\n",
             fast="def f():\n    return 1\n", slow="def f():\n    return 2\n"), "return 2", "return 3", "src/slow.py"),
    Row("what may make an import fail that is caught", "must",
        step("try:\n    from fast import f\nexcept Exception:\n    f = None\ndef run(x):\n    return f\n",
             fast="N = 1\ndef f():\n    return 1\n"), "N = 1", "N = 1 / 0", "src/fast.py"),
    Row("TYPE_CHECKING", "not",
        step("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import T\ndef run(x: 'T'):\n    return 1\n",
             a="print(1)\nclass T:\n    n = 1\n"), "n = 1", "n = 2", "src/a.py"),
    Row("an import in a function", "must", step("def run(x):\n    from a import f\n    return f()\n", a="def f():\n    return 1\n"),
        "return 1", "return 2", "src/a.py"),
    Row("an import in a function, another name", "not",
        step("def run(x):\n    import a as m\n    return m.f()\n", a="def f():\n    return 1\ndef g():\n    return 3\n"),
        "return 3", "return 2", "src/a.py"),
    Row("an effect of a module that only another function imports", "not",
        step("def plot():\n    import a\ndef run(x):\n    return x\n", a="print(1)\n"), "print(1)", "print(2)", "src/a.py"),
    Row("an effect of a module that it imports for nothing", "must",
        step("import a\ndef run(x):\n    return x\n", a="print(1)\n"), "print(1)", "print(2)", "src/a.py"),
    Row("a module more that has an effect", "must",
        step("import a\ndef run(x):\n    return x\n", a="print(1)\n", b="print(2)\n"), "import a\n", "import a\nimport b\n"),
    Row("a module more that has none", "not",
        step("import a\ndef run(x):\n    return x\n", a="N = 1\n", b="M = 1\n"), "import a\n", "import a\nimport b\n"),
    Row("the order of modules that have effects", "must",
        step("import a\nimport b\ndef run(x):\n    return x\n", a="print(1)\n", b="print(2)\n"), "import a\nimport b", "import b\nimport a"),
    Row("circular imports", "must",
        step("import a\ndef N():\n    return 1\ndef run(x):\n    return a.f()\n", a="import step\ndef f():\n    return step.N()\n"),
        "return 1", "return 2"),
    Row("when a circular import takes a name", "must",
        step("import a\ndef run(x):\n    return a.taken\n", a="N = 1\nimport b\nN = 2\ntaken = b.M\n", b="import a\nM = a.N\n"),
        "N = 1\nimport b\nN = 2", "import b\nN = 1\nN = 2", "src/a.py"),
    Row("a patched attribute of a module", "must",
        step("import a\na.N = 2\ndef run(x):\n    return a.f()\n", a="N = 1\ndef f():\n    return N\n"), "a.N = 2", "a.N = 3"),
    Row("a function that patches a module", "must",
        step("import a\ndef patch():\n    a.N = M\nM = 2\ndef run(x):\n    patch()\n    return a.f()\n", a="N = 1\ndef f():\n    return N\n"),
        "M = 2", "M = 3"),
    Row("getattr of a module", "must",
        step("import a\ndef run(x):\n    return getattr(a, x)()\n", a="def f():\n    return 1\n"), "return 1", "return 2", "src/a.py"),
    Row("a module in a variable", "must",
        step("import a\nm = a\ndef run(x):\n    return m.f()\n", a="def f():\n    return 1\n"), "return 1", "return 2", "src/a.py"),
    Row("a module bound by global", "must",
        step("m = None\ndef get():\n    global m\n    import a as m\ndef run(x):\n    get()\n    return m.f()\n", a="def f():\n    return 1\n"),
        "return 1", "return 2", "src/a.py"),
    Row("a module of a class", "must",
        step("class C:\n    import a\ndef run(x):\n    return C.a.f()\n", a="def f():\n    return 1\n"), "return 1", "return 2", "src/a.py"),
    Row("a module in a module that is a value", "must",
        step("import a\ndef run(x):\n    return getattr(a, x).f()\n", a="import b\n", b="def f():\n    return 1\n"), "return 1", "return 2", "src/b.py"),
    Row("a dictionary of a module", "must",
        step("import a\ndef run(x):\n    return a.__dict__['f']()\n", a="def f():\n    return 1\n"), "return 1", "return 2", "src/a.py"),
    Row("import_module of a literal", "must",
        step("from importlib import import_module\ndef run(x):\n    return import_module('a').f()\n", a="def f():\n    return 1\n"),
        "return 1", "return 2", "src/a.py"),
    Row("import_module of a name", "must",
        step("import importlib\ndef plot():\n    import a\ndef run(x):\n    return importlib.import_module(x).f()\n", a="def f():\n    return 1\n"),
        "return 1", "return 2", "src/a.py"),
    Row("sys.modules", "must",
        step("import sys, a\ndef run(x):\n    return sys.modules['a'].f()\n", a="def f():\n    return 1\n"), "return 1", "return 2", "src/a.py"),
    Row("exec", "must", step("def f():\n    return 1\ndef run(x):\n    exec('y = f()')\n"), "return 1", "return 2"),
    Row("exec in another function", "not", step("def f():\n    return 1\ndef other():\n    exec('y = f()')\ndef run(x):\n    return x\n"), "return 1", "return 2"),
    Row("globals", "must", step("def f():\n    return 1\ndef run(x):\n    return globals()[x]()\n"), "return 1", "return 2"),
    Row("pickle by name", "must",
        step("import pickle\nfrom a import other\ndef run(x):\n    return pickle.load(x).n\n", a="class C:\n    n = 1\ndef other(): pass\n"), "n = 1", "n = 2", "src/a.py"),
    Row("__getattr__ of a module", "must",
        step("import a\ndef run(x):\n    return a.anything\n", a="def __getattr__(name):\n    return 1\n"), "return 1", "return 2", "src/a.py"),
    Row("an attribute that is no longer __getattr__'s", "must",
        step("from a import n\ndef run(x):\n    return n\n", a="# here\ndef __getattr__(name):\n    return 1\n"), "# here", "n = 2", "src/a.py"),
    Row("get_type_hints", "must",
        step("import typing\nclass T:\n    n = 1\nclass C:\n    x: 'T'\ndef run(x):\n    return typing.get_type_hints(C)['x'].n\n"), "n = 1", "n = 2"),
    Row("a line number", "must", step("import inspect\n# here\ndef run(x):\n    return inspect.currentframe().f_lineno\n"), "# here", "# here\n"),
    Row("a line number in another function", "not", step("import inspect\n# here\ndef f():\n    return inspect.stack()\ndef run(x):\n    return x\n"), "# here", "# here\n"),
    Row("the format of a log with line numbers", "must",
        step("import logging\n# here\ndef run(x):\n    logging.basicConfig(filename=x, format='%(lineno)d')\n"), "# here", "# here\n"),
    Row("a docstring that is read", "must", step("def f():\n    'one'\ndef run(x):\n    return f.__doc__\n"), "'one'", "'two'"),
    Row("a docstring that is not read", "not", step("def f():\n    'one'\ndef run(x):\n    return f()\n"), "'one'", "'two'"),
    Row("a docstring read by another function", "not",
        step("def f():\n    'one'\ndef show():\n    return f.__doc__\ndef run(x):\n    return f()\n"), "'one'", "'two'"),
    Row("the file as text", "must", step("# here\ndef run(x):\n    return open(__file__).read()\n"), "# here", "# there"),
    Row("source text of another module", "must",
        step("import inspect, a\ndef run(x):\n    return inspect.getsource(a.f)\n", a="# here\ndef f(): pass\n"), "# here", "# there", "src/a.py"),
    # --- labmake's own statements
    Row("a rule", "not", step("from labmake import rule, py\nrule('a.txt', run=py('src/step.py:run'))\ndef run(x):\n    return x\n"), "a.txt", "b.txt"),
    Row("the rule above the function", "not", step("from labmake import rule\n@rule('a.txt', x='b.txt')\ndef run(x):\n    return x\n"), "b.txt", "c.txt"),
    Row("a constant of a rule", "not", step("from labmake import rule, py\nN = 1\nrule('a.txt', run=py('src/step.py:run', n=N))\ndef run(x):\n    return x\n"), "N = 1", "N = 2"),
    Row("a plan", "not", step("from labmake import plan, step\n@plan('a/{n}.txt')\ndef decide(n):\n    return step(n)\ndef run(x):\n    return x\n"), "step(n)", "step(n + 1)"),
    Row("a plan that it calls", "must", step("from labmake import plan, step\n@plan('a/{n}.txt')\ndef decide(n):\n    return n\ndef run(x):\n    return decide(x)\n"), "return n\n", "return n + 1\n"),
    Row("a rule more in a loop", "not", step("from labmake import rule, py\nfor n in [1]:\n    rule(f'a{n}.txt', run=py('src/step.py:run'))\ndef run(x):\n    return x\n"), "[1]", "[1, 2]"),
    Row("a rule's argument that has an effect", "must", step("from labmake import rule, py\ndef f():\n    print(1)\nrule('a.txt', n=f())\ndef run(x):\n    return x\n"), "print(1)", "print(2)"),
    Row("an extension module", "must", {**step("import fast\ndef run(x):\n    return fast.f()\n"), "src/fast.abi3.so": "one"}, "one", "two", "src/fast.abi3.so"),
    Row("a class whose objects are a constant", "may", step("class C:\n    n = 1\nX = C()\ndef run(x):\n    return 1\n"), "n = 1", "n = 2"),
    Row("a loop at the top", "not", step("L = []\nfor n in [1]:\n    M = n\ndef run(x):\n    return x\n"), "M = n", "M = 2"),
    Row("what a loop appends", "must", step("L = []\nfor n in [1]:\n    L.append(n)\ndef run(x):\n    return L\n"), "[1]", "[2]"),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_an_edit_has_its_verdict(row: Row, tmp_path: Path) -> None:
    before = {path: textwrap.dedent(text).lstrip("\n") for path, text in row.files.items()}
    change = [textwrap.dedent(text) if text.startswith("\n") else text for text in (row.before, row.after)]
    if before != row.files:
        change = [text.replace("\n    ", "\n") for text in change]
    first = identity(tmp_path / "before", before)
    second = identity(tmp_path / "after", edited(before, row.file, *change))
    assert row.verdict == "may" or (first == second) is (row.verdict == "not")


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(ROWS) >= 60 and len({row.what for row in ROWS}) == len(ROWS)
