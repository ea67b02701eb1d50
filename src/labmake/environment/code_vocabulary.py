"""The words of a Python module by which it may see or reach more than its names show."""

from __future__ import annotations

import ast
import builtins


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


READS_SOURCE = word_set(
    "getsource getsourcelines findsource getcomments getblock linecache doctest traceback format_exc print_exc "
    "co_firstlineno co_lines f_lineno tb_lineno lineno _getframe currentframe findCaller __code__ cloudpickle "
    "dill"
)
"""Words by which a module sees the text, comments or line numbers of any module of its closure."""

READS_SOURCE_PAIRS = (("inspect", "stack"), ("inspect", "trace"), ("torch", "jit"))
"""The same, for words that mean something else alone (numpy.stack, numba.jit)."""

READS_DOCSTRINGS = word_set(
    "__doc__ getdoc docopt pydoc docstring_parser jsonargparse tools get_json_schema from_function dspy"
)
"""Words by which a module makes something of docstrings; language models are told their tools by docstring."""

READS_ITSELF = word_set("__file__ __loader__ __spec__ exec eval compile globals locals vars __dict__ get_data")
"""Names by which a module may see more of itself than its syntax tree."""

BINDS_UNSEEN = frozenset(["__dict__", "__getattr__", "exec", "globals", "modules", "vars"])
"""Words by which a module may bind names that its text does not show."""

OPENS_MODULE = {
    **dict.fromkeys(("=exec", "=eval", "=compile"), "code made at run time may use any name"),
    **dict.fromkeys(("=globals", "=vars@", "=locals@", "=dir@"), "the module's names are used as a dictionary"),
    **dict.fromkeys(("=__file__", "=__loader__", "=__spec__"), "the file may be read as text"),
}
"""Plain names by which a definition may use all of its module; `@` where only a use outside of functions does."""

LITERAL_IMPORTS = frozenset({"import_module", "__import__", "run_module"})
"""Functions whose argument, if it is a literal, names the module that they import."""

FINDS_MODULES = word_set(
    "import_module __import__ run_module run_path resolve_name locate SourceFileLoader spec_from_file_location "
    "exec_module module_from_spec load_source entry_points instantiate _target_ Fire"
)
FINDS_OBJECTS = word_set(
    "__globals__ __builtins__ f_globals get_objects get_referrers get_referents __subclasses__ getmodule"
)
UNPICKLES = word_set(
    "pickle cPickle _pickle Unpickler read_pickle jsonpickle shelve allow_pickle load_model unsafe_load full_load "
    "UnsafeLoader FullLoader"
)
OPENS_ALL = {
    **dict.fromkeys(FINDS_MODULES, "imports a module by a name that is known only when it runs"),
    **dict.fromkeys(FINDS_OBJECTS, "finds objects otherwise than by name"),
    **dict.fromkeys(UNPICKLES, "unpickles: objects are found by the names in a file"),
}
"""Words by which a definition may reach any definition of its closure, with the reason as `why` gives it."""

OPENS_ALL_PAIRS = {
    ("sys", "modules"): "finds a module in sys.modules",
    ("joblib", "load"): "unpickles: objects are found by the names in a file",
    ("torch", "load"): "unpickles: objects are found by the names in a file",
    ("skops", "load"): "unpickles: objects are found by the names in a file",
}
"""The same, for words that mean something else alone (torch's modules(), json.load)."""

SILENT_DECORATORS = word_set(
    "property staticmethod classmethod setter getter deleter abstractmethod overload override final cache "
    "lru_cache cached_property wraps singledispatch contextmanager total_ordering dataclass"
)
SILENT_BASES = word_set("ABC Protocol NamedTuple TypedDict Generic Enum IntEnum StrEnum Flag IntFlag")
"""Decorators and bases that are known not to make a result of a docstring. Others may: a base class can send its
subclass's docstring to a language model as the prompt."""

VOCABULARY = frozenset(
    READS_SOURCE
    | {word for pair in (*READS_SOURCE_PAIRS, *OPENS_ALL_PAIRS) for word in pair}
    | READS_DOCSTRINGS
    | READS_ITSELF
    | BINDS_UNSEEN
    | OPENS_ALL.keys()
    | {"dir"}
)
"""All words that an analysis keeps."""


def docstring_may_be_read(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """May a decorator or a base class make something of this docstring?"""
    if any(_last_name(decorator) not in SILENT_DECORATORS for decorator in node.decorator_list):
        return True
    if not isinstance(node, ast.ClassDef):
        return False
    return bool(node.keywords) or not all(_is_silent_base(base) for base in node.bases)


def _is_silent_base(base: ast.expr) -> bool:
    name = _last_name(base)
    return name in SILENT_BASES or (isinstance(base, ast.Name) and hasattr(builtins, name))


def _last_name(node: ast.expr) -> str:
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def sees(words: frozenset[str] | set[str]) -> int:
    """0, or 1 if these words use docstrings, and 2 if they use source text or line numbers of the closure."""
    both = {word.strip("=@") for word in words}
    if both & READS_SOURCE or any(both.issuperset(pair) for pair in READS_SOURCE_PAIRS):
        return 2
    # Another module's file, by attribute or by name, can be opened and read as text.
    if "__file__" in words or ".py" in words:
        return 2
    return 1 if both & READS_DOCSTRINGS else 0
