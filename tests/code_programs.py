"""Random small programs of four modules, edits of them, and what they give when they are really run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

NAMES = ("p", "q", "r", "s", "t")
MODULES = ("low", "pkg/__init__", "pkg/inner", "mid", "step")
"""Each may import those before it, and mid and low each other."""

TOOLS = '''
from functools import cached_property, lru_cache, partial, singledispatch

LOG = []
NAMES = ("p", "q", "r", "s", "t")


def val(x, depth=0):
    """A number that tells as much as can be seen of a value."""
    if depth > 3:
        return 1
    if isinstance(x, bool) or isinstance(x, int):
        return x
    if isinstance(x, (list, tuple, dict)):
        return 1000 + sum(val(y, depth + 1) * (n + 1) for n, y in enumerate(x.values() if isinstance(x, dict) else x))
    if isinstance(x, type):
        return val(getattr(x, "v", 5), depth + 1) + (val(x().m(), depth + 1) if hasattr(x, "m") else 0)
    if callable(x):
        return val(x(), depth + 1)
    return sum(val(getattr(x, name), depth + 1) * 7 for name in NAMES if hasattr(x, name))


def note(x):
    LOG.append(val(x))
    return x
'''
HEAD = "from tools import LOG, val, note, partial, lru_cache, singledispatch, cached_property\n"

EXPRESSIONS = (
    "{i}", "{i}", "val({n})", "val({n}) + val({m})", "val({n}) * {i}", "val([{n}, {m}])", "val({{'a': {n}}})",
    "[{n} for {n} in [{i}]][0]", "[val({m}) for x in range(2)][0]", "({m} if {i} else {n}, 1)[1] + val({n})",
    "(lambda: val({n}))()", "(x := {i}) + x", "sum([{i}, {j}])", "val(partial({n}))", "max({i}, {j})", "len(LOG)",
)  # fmt: skip
MODULE_EXPRESSIONS = (
    "val({M}.{n})", "val({M}.{n}) + {i}", "val([{M}.{n}])",
    "val(__import__('importlib').import_module('{D}').{n})",
)  # fmt: skip
DYNAMIC_EXPRESSIONS = (
    "val({M})", "val(getattr({M}, '{n}'))", "val(globals().get('{n}', {i}))", "val({M}.__dict__.get('{n}', {i}))",
    "eval('{n}') and {i}", "val(vars({M}).get('{n}', 0))", "val(__import__('sys').modules['{D}'].{n})",
)  # fmt: skip
STATEMENTS = (
    "{n} = {i}", "{n} = {i}", "{n} = [{i}, {j}]", "{n} = {m}", "{n} = [{m}, {i}]", "{n} = {{'k': {m}}}",
    "{n} = lambda: {e}", "{n} = partial({m})", "{n}, {m} = {i}, {j}", "{n} = ({i}, {j})[0]", "{n} = {i} + {j}",
    "def {n}():\n    return {e}", "def {n}():\n    return {e}", "def {n}():\n    x = {e}\n    return x + {i}",
    "def {n}(v={m}):\n    return val(v) + {i}", "def {n}():\n    {m} = {i}\n    return val({m})",
    "def {n}():\n    def inner():\n        return {e}\n    return inner()",
    "def {n}():\n    class K:\n        v = {e}\n    return K.v",
    "def {n}():\n    global {m}\n    {m} = {i}\n    return {e}",
    "def {n}():\n    LOG.append({i})\n    return {e}",
    "@lru_cache(None)\ndef {n}():\n    return {e}", "@note\ndef {n}():\n    return {e}",
    "@singledispatch\ndef {n}(x=0):\n    return {e}\n@{n}.register\ndef _(x: int):\n    return {i}",
    "class {n}:\n    v = {i}\n    def m(self):\n        return {e}",
    "class {n}:\n    v = {m}", "class {n}:\n    {m} = {m}\n    v = {m}",
    "class {n}:\n    @property\n    def w(self):\n        return {e}\n    def m(self):\n        return self.w",
    "class {n}:\n    v = {i}\n    def __init_subclass__(cls):\n        LOG.append(val(cls.v))",
    "class {n}({m} if isinstance({m}, type) else object):\n    v = {i}",
    "class B{n}:\n    v = {i}\nclass {n}(B{n}):\n    def m(self):\n        return {e}",
    "note({n})", "note({i})", "LOG.append({i})", "{n} = note({m})", "{n} = {e}",
    "if {i} > 2:\n    {n} = {i}\nelse:\n    def {n}():\n        return {e}",
    "if val({m}) > 2:\n    {n} = {i}", "for {n} in [{i}, {j}]:\n    pass", "for x in [{i}]:\n    {n} = {m}",
    "try:\n    {n} = {m}\nexcept NameError:\n    {n} = {i}", "if (w := {i}):\n    {n} = w",
    "del {n}", "sum = {m}", "def max(*a):\n    return {i}", "if __name__ == '__main__':\n    {n} = {i}",
)  # fmt: skip
MODULE_STATEMENTS = (
    "import {D} as {n}", "from {D} import {m} as {n}", "from {D} import {n}", "from {D} import {n}",
    "import {D}", "from {D} import *", "{n} = {M}.{m}",
    "def {n}():\n    import {D} as k\n    return val(k.{m})",
    "def {n}():\n    from {D} import {m} as k\n    return val(k)",
    "try:\n    from {D} import {m} as {n}\nexcept ImportError:\n    {n} = {i}",
    "{M}.{n} = {i}", "def {n}():\n    {M}.{m} = {i}\n    return {e}",
    "from tools import NAMES\ndef __getattr__(name):\n    if name in NAMES:\n        return {i}\n"
    "    raise AttributeError(name)",
)  # fmt: skip
DYNAMIC_STATEMENTS = (
    "{n} = {M}", "def {n}():\n    setattr({M}, '{m}', {i})\n    return {e}", "globals()['{n}'] = {i}",
    "exec('{n} = {i}')", "class {n}:\n    import {D} as v", "setattr({M}, '{n}', {m})",
)  # fmt: skip

Program = dict[str, list[str]]
"""Module → its statements."""

small = st.integers(1, 5)
name = st.sampled_from(NAMES)


@st.composite
def texts(draw: st.DrawFn, module: str, dynamic: bool, statement: bool = True) -> str:
    """A statement or an expression of a module."""
    others = [other for other in MODULES[: MODULES.index(module)] if other != module]
    others += ["mid"] * (module == "low") + ["step"] * (module == "mid")
    other = draw(st.sampled_from(others)).removesuffix("/__init__") if others else ""
    plain, of_modules, dynamics = (
        (STATEMENTS, MODULE_STATEMENTS, DYNAMIC_STATEMENTS)
        if statement
        else (EXPRESSIONS, MODULE_EXPRESSIONS, DYNAMIC_EXPRESSIONS)
    )
    choices = [*plain, *(of_modules if other else ()), *(dynamics if other and dynamic else ())]
    text = draw(st.sampled_from(choices))
    inner = draw(texts(module, dynamic, False)) if "{e}" in text else ""
    dotted = other.replace("/", ".")
    return text.format(i=draw(small), j=draw(small), n=draw(name), m=draw(name), e=inner, M=dotted, D=dotted)


@st.composite
def programs(draw: st.DrawFn, dynamic: bool = True) -> Program:
    """Modules of some statements each. Names that are used are mostly there: each module begins with some."""
    found: Program = {}
    for module in MODULES:
        others = [other.removesuffix("/__init__").replace("/", ".") for other in MODULES[: MODULES.index(module)]]
        ways = ("import {o}", "import {o}\nfrom {o} import {n} as {m}", "import {o}\nfrom {o} import *", "import {o}")
        known = [f"{n} = {draw(small)}" for n in NAMES]
        imports = [draw(st.sampled_from(ways)).format(o=o, n=draw(name), m=draw(name)) for o in others]
        first, second = draw(st.permutations([imports, known]))
        found[module] = first + second + draw(st.lists(texts(module, dynamic), min_size=1, max_size=4))
    result = draw(st.lists(texts("step", dynamic, False), min_size=2, max_size=5))
    module = draw(st.sampled_from(("low", "mid", "pkg.inner")))
    result += [f"val({module}.{draw(name)})", f"val({draw(name)})"]
    found["step"].append("def run():\n    return [" + ", ".join(result) + "]")
    return found


@st.composite
def edits(draw: st.DrawFn, program: Program, dynamic: bool = True) -> Program:
    """A program with a change: a statement replaced, removed, added, or two of them exchanged."""
    module = draw(st.sampled_from(MODULES))
    body = list(program[module])
    last = [body.pop()] if module == "step" else []  # run itself stays
    kind = draw(st.sampled_from(("replace", "replace", "remove", "add", "exchange")))
    place = draw(st.integers(0, max(0, len(body) - 1)))
    if kind == "add" or not body:
        body.insert(place, draw(texts(module, dynamic)))
    elif kind == "replace":
        body[place] = draw(texts(module, dynamic))
    elif kind == "remove":
        del body[place]
    else:
        other = draw(st.integers(0, len(body) - 1))
        body[place], body[other] = body[other], body[place]
    return {**program, module: body + last}


def write(root: Path, program: Mapping[str, list[str]]) -> None:
    """Write a program's modules into `root`/src."""
    for module in MODULES:
        path = root / "src" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + "\n".join(program[module]) + "\n")
    (root / "src" / "tools.py").write_text(TOOLS)


def outcome(root: Path) -> str | None:
    """What step.run() gives and what was noted, from a fresh start; None if it raised an error."""
    ours = {"low", "mid", "step", "tools", "pkg", "pkg.inner"}
    before, path, limit = dict(sys.modules), list(sys.path), sys.getrecursionlimit()
    sys.path.insert(0, str(root / "src"))
    importlib.invalidate_caches()
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.setrecursionlimit(400)
    try:
        step = importlib.import_module("step")
        return repr((step.run(), sys.modules["tools"].LOG))
    except Exception:
        return None
    finally:
        sys.setrecursionlimit(limit)
        sys.dont_write_bytecode = writes
        sys.path[:] = path
        for module in [module for module in sys.modules if module in ours]:
            del sys.modules[module]
        sys.modules.update({module: value for module, value in before.items() if module in ours})
