"""What a user writes in script.py and rules.py: rule, plan, step, source, each, find, glob, group.

While a rule file is loaded, a Loading collects what these calls declare; anywhere else (in a step, in a REPL) they do
nothing, so that a script's functions can be imported like those of any module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar

from labmake.engine import plan as planning
from labmake.engine.batches import check_batch
from labmake.engine.patterns import compiled, wildcards
from labmake.errors import Misuse, RuleError, Where
from labmake.layout import expand, generated_folder
from labmake.model import FORMAT, Each, Find, Glob, Recipe, Rule, Spec, Step, canonical, digest_of
from labmake.recipes import check_recipe, parameters

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = {
    "memory": "an amount such as 2G",
    "cpus": "a number",
    "gpus": "a number",
    "time": "a duration such as 90s, 30m or 2h",
    "code": "a list of files",
    "environment": '"all", "none" or a list of lock files',
    "secrets": "a list of variables' names",
    "wrap": "a command",
    "retries": "a number, 0 or more",
    "batch": "a number, 1 or more",
    "checkpoint": "True or False",
    "cache": "True or False",
    "temp": "True or False",
    "compare": '"bytes", "pixels", or "numbers" and a relative tolerance such as "numbers 1e-9"',
    "default": "True or False",
    "description": "a text",
}
"""The reserved words beside `run`, with what they take."""

LATER = frozenset("gpu_memory disk tokens memory_max executor".split())
"""Words that are reserved so that no rule uses them as names, and that this version does not offer."""


@dataclass
class Loading:
    """What one rule file has declared so far."""

    experiment: str
    file: str
    root: Path
    rules: list[Rule] = field(default_factory=list)
    groups: dict[str, tuple[list[str], Where]] = field(default_factory=dict)
    waiting: list[Where] = field(default_factory=list)
    """Rules without run= that have not yet decorated a function."""


loading: Loading | None = None
"""The rule file that is being loaded, if any."""


def rule(*outputs: str | Mapping[str, str], run: Recipe | None = None, **words: Any) -> Callable[[F], F]:
    """Targets and how they are made; with `run=` a call, without it the decorator of the function that is the step.

    `outputs` are patterns (`{name}` is a wildcard, a closing `/` a folder) or one dict of named ones; every other word
    is an input, a number or truth value is a parameter, and the reserved words (OPTIONS) are options.
    """
    where = _caller()
    into = loading

    def add(recipe: Recipe) -> None:
        if into is not None:
            into.rules.append(make_rule(into, _outputs(outputs, where), recipe, words, where))

    if run is not None:
        add(_at(where, check_recipe, run))
    elif into is not None:
        into.waiting.append(where)

    def decorate(function: F) -> F:
        if run is not None:
            raise RuleError(
                f"the rule of {function.__name__} has run= and decorates a function too",
                [],
                ["drop run=, or do not decorate"],
                where,
            )
        _at(where, _check_top_level, function)
        if into is not None and where in into.waiting:
            into.waiting.remove(where)
        own = "./script.py" if into and into.experiment else "/rules.py"
        add(Recipe("function", own, function.__name__))
        return function

    return decorate


def plan(*outputs: str | Mapping[str, str], **options: Any) -> Callable[[F], F]:
    """The decorator of a function that gets the wildcards it names and returns `step(…)`; it decides before it runs."""
    where = _caller()
    into = loading

    if into is not None:
        into.waiting.append(where)

    def decorate(function: F) -> F:
        if into is not None:
            if where in into.waiting:
                into.waiting.remove(where)
            named = _outputs(outputs, where)
            patterns = _targets(named, into, where)
            _at(where, _check_options, options)
            digest = digest_of(canonical(["plan", FORMAT, function.__name__, patterns]).encode())
            into.rules.append(Rule(patterns, into.experiment, where, digest, plan=function, options=options))
        return function

    return decorate


def check_complete(loaded: Loading) -> None:
    """Raises RuleError for a rule or plan that says no recipe: without `run=`, and decorating nothing."""
    if loaded.waiting:
        raise RuleError(
            "a rule has no recipe",
            [],
            ["give it run=sh(…), py(…) and the like, or write it as a decorator: @rule(…) above the function"],
            loaded.waiting[0],
        )


def step(*, run: Recipe, **words: Any) -> Step:
    """What a plan decided: the same words as `rule`, without outputs."""
    return split_words(check_recipe(run), words)


def source(target: str, address: str, **options: Any) -> None:
    """Data from outside: `target` is a copy of the file or folder at `address`, pinned by its hash in hashes.txt.

    `address` is a path (relative ones from the project's root), `~/…`, `file:///…`, `package:name/path` for a file that
    comes inside an installed Python package, or `http://…`, `https://…` for a file that is fetched once. A folder is
    written with a closing `/` on both sides.
    """
    where = _caller()
    if loading is None:
        return
    _at(where, _check_address, target, address)
    patterns = _targets({"out": target}, loading, where)
    if wildcards(patterns["out"]):
        raise RuleError("a source has no wildcards", [("target", target)], ["name one file, or a folder/"], where)
    _at(where, _check_options, options)
    text = canonical(["source", FORMAT, patterns, address])
    digest = digest_of(text.encode())
    loading.rules.append(Rule(patterns, loading.experiment, where, digest, address=address, options=options))


def _check_address(target: str, address: str) -> None:
    """Raises RuleError for an address that no source can have."""
    facts = [("target", target), ("address", address)]
    scheme = address.partition(":")[0].lower() if "://" in address else ""
    if scheme not in ("", "file", "http", "https"):
        raise RuleError(
            f"source() cannot fetch {scheme}:// addresses in this version",
            facts,
            ["fetch it in a step, or give an http(s) address, a file, a folder or package:name/path"],
        )
    if scheme in ("http", "https"):
        if target.endswith("/"):
            raise RuleError(
                f"a source by {scheme} is one file",
                facts,
                ["write the target without the closing /; a rule can unpack an archive into a folder"],
            )
        if not _has_host(address):
            raise RuleError("the address of a source names no host", facts, ["write https://host/path"])
        if "@" in address.split("/")[2]:
            raise RuleError(
                "an address holds no password",
                [("target", target)],
                ["rules are published: fetch the data by hand, and give their path"],
            )
    elif target.endswith("/") != address.endswith("/"):
        raise RuleError(
            "a source is a file on both sides, or a folder with a closing / on both",
            facts,
            ["write both with a closing / for a folder, or both without for a file"],
        )


def _has_host(address: str) -> bool:
    from urllib.parse import urlsplit

    try:
        return bool(urlsplit(address).hostname)
    except ValueError:
        return False


def each(pattern: str, /, failed: object = planning.RAISE, **over: Any) -> Each:
    """One input per value of the wildcards: `over` maps each to a list, a file whose keys are the values, or a find.

    It arrives as a dict keyed by the wildcard (several: tuples). `failed=None` goes on without the ones that failed.
    """
    for name in over:
        if name not in wildcards(pattern):
            raise RuleError(
                f"each() gives values for {{{name}}}, which its pattern does not have",
                [("pattern", pattern), ("values for", ", ".join(over))],
                [f"write {{{name}}} where the value belongs, or drop {name}="],
            )
    if not over:
        raise RuleError("each() needs the values of a wildcard", [("pattern", pattern)], ['name="file.json"'])
    return Each(pattern, {name: _values(name, values) for name, values in over.items()}, failed is None)


def _values(name: str, values: Any) -> Any:
    """The values of a wildcard: a file's path, a Find, or a list."""
    if isinstance(values, (str, Find)):
        return values
    try:
        return list(values)
    except TypeError:
        raise RuleError(
            f"each() cannot take the values of {name} from this",
            [("type", type(values).__name__), ("value", repr(values)[:200])],
            [f'{name}= is a list, a file such as "data/folds.json", or find(…)'],
        ) from None


def find(pattern: str, /) -> Any:
    """The files that match a pattern with wildcards, in a folder target or in the worktree.

    In a plan: a dict from the wildcard's value (several: tuples) to the short path. As an input: the same as files.
    """
    return planning.find(pattern) if planning.in_plan() else Find(pattern)


def glob(pattern: str, /) -> Any:
    """The worktree's files that match a shell pattern (never generated ones, except inside folder targets), sorted."""
    return planning.glob(pattern) if planning.in_plan() else Glob(pattern)


def group(name: str, /, *targets: str) -> None:
    """Targets that are asked for together, by name."""
    where = _caller()
    if loading is not None:
        loading.groups[name] = ([_at(where, expand, target, loading.experiment) for target in targets], where)


def make_rule(into: Loading, named: Mapping[str, str], recipe: Recipe, words: Mapping[str, Any], where: Where) -> Rule:
    """The rule that a call or decorator declares, checked. Raises RuleError with the place of the call."""
    patterns = _targets(named, into, where)
    decided = _at(where, split_words, recipe, words)
    _at(where, _check_names, patterns, decided)
    _at(where, check_batch, decided, recipe, patterns, wildcards(next(iter(patterns.values()))))
    text = canonical(
        [
            "rule",
            FORMAT,
            patterns,
            [recipe.kind, recipe.text, recipe.function, recipe.interpreter, recipe.params],
            [[name, describe_spec(spec)] for name, spec in decided.inputs.items()],
            decided.params,
            {name: decided.options[name] for name in ("code", "environment", "wrap") if name in decided.options},
        ]
    )
    return Rule(patterns, into.experiment, where, digest_of(text.encode()), step=decided, options=decided.options)


def split_words(recipe: Recipe, words: Mapping[str, Any]) -> Step:
    """The words of a rule or step as inputs, parameters and options."""
    inputs: dict[str, Spec] = {}
    params = dict(recipe.params)
    options: dict[str, Any] = {}
    rest = dict(words)
    inputs.update(rest.pop("inputs", {}))
    params.update(parameters(rest.pop("parameters", {})))
    for name, value in rest.items():
        if name in OPTIONS or name in LATER:
            options[name] = value
        elif isinstance(value, (bool, int, float)) or value is None:
            params[name] = value
        else:
            inputs[name] = value
    inputs = {name: _texts(spec) for name, spec in inputs.items()}
    _check_options(options)
    for name, spec in inputs.items():
        check_spec(name, spec)
    clash = sorted(set(inputs) & set(params))
    if clash:
        raise RuleError(f"{clash[0]} is an input and a parameter", [("name", clash[0])], ["rename one of them"])
    return Step(recipe, inputs, params, options)


def _texts(spec: Any) -> Any:
    """An input with its Paths as texts."""
    if isinstance(spec, PurePath):
        return str(spec)
    if isinstance(spec, (list, tuple)):
        return [_texts(item) for item in spec]
    return {key: _texts(item) for key, item in spec.items()} if isinstance(spec, dict) else spec


def check_spec(name: str, spec: object) -> None:
    """Raises RuleError if `spec` is nothing that an input can be."""
    if isinstance(spec, (list, tuple)):
        for item in spec:
            check_spec(name, item)
    elif isinstance(spec, dict):
        for item in spec.values():
            check_spec(name, item)
    elif not isinstance(spec, (str, Each, Find, Glob)) or spec == "":
        raise RuleError(
            f"the input {name} is no path",
            [("type", type(spec).__name__), ("value", repr(spec)[:200])],
            ["an input is a path, a slice, a list or dict of them, each(…), find(…) or glob(…)"],
        )


def describe_spec(spec: Any) -> Any:
    """An input as JSON, for the identity of its rule."""
    if isinstance(spec, Each):
        return ["each", spec.pattern, {name: describe_spec(v) for name, v in spec.over.items()}, spec.failed]
    if isinstance(spec, Find):
        return ["find", spec.pattern]
    if isinstance(spec, Glob):
        return ["glob", spec.pattern]
    if isinstance(spec, dict):
        return {str(name): describe_spec(item) for name, item in spec.items()}
    if isinstance(spec, (str, int, float)):
        return spec
    return [describe_spec(item) for item in spec]


def _outputs(outputs: tuple[Any, ...], where: Where) -> dict[str, str]:
    named = outputs[0] if len(outputs) == 1 and isinstance(outputs[0], Mapping) else None
    paths = outputs if named is None else tuple(named.values())
    if not paths or not all(isinstance(output, str) and output for output in paths):
        raise RuleError(
            "a rule names its outputs first",
            [("given", repr(outputs))],
            ['rule("data/x.csv", …), several of them, or one dict of named ones'],
            where,
        )
    if named is not None:
        return {str(name): path for name, path in named.items()}
    return {"out": outputs[0]} if len(outputs) == 1 else {f"out{i}": o for i, o in enumerate(outputs, 1)}


def _targets(named: Mapping[str, str], into: Loading, where: Where) -> dict[str, str]:
    """The outputs as patterns from the project's root, which must lie in generated/ and share their wildcards."""
    patterns = {name: _at(where, expand, pattern, into.experiment) for name, pattern in named.items()}
    first = next(iter(patterns.values()))
    folder = f"{generated_folder(into.experiment)}/"
    for name, pattern in patterns.items():
        if wildcards_of(pattern, where):
            _at(where, compiled, pattern)
        if not pattern.startswith(folder):
            raise RuleError(
                f"an output lies outside of {folder}",
                [("output", named[name]), ("means", pattern)],
                ["write a short path such as data/x.csv or outputs/x.pdf"],
                where,
            )
        if set(wildcards_of(pattern, where)) != set(wildcards_of(first, where)):
            raise RuleError(
                "the outputs of a rule must have the same wildcards",
                [
                    ("output", pattern),
                    ("has", ", ".join(wildcards(pattern)) or "none"),
                    ("output", first),
                    ("has", ", ".join(wildcards(first)) or "none"),
                ],
                ["write every wildcard into each of them: the values of one output then tell the others"],
                where,
            )
    return patterns


def wildcards_of(pattern: str, where: Where) -> list[str]:
    """The wildcards of an output. Raises RuleError with the place of the rule if one is malformed."""
    names: list[str] = _at(where, wildcards, pattern)
    return names


def _check_top_level(function: Callable[..., Any]) -> None:
    """A step's function is imported by its name, so it must have one."""
    name = getattr(function, "__qualname__", "")
    if not name.replace(".", "_").isidentifier():
        raise RuleError(
            "a step's function must stand at the top level of its file",
            [("function", name or repr(function)[:200])],
            ["define it with def, outside of any function; for many of a kind use a wildcard in the output"],
        )


def _check_names(patterns: Mapping[str, str], decided: Step) -> None:
    """Outputs, inputs, wildcards and parameters share one namespace."""
    seen: dict[str, str] = {}
    kinds = [
        ("an output", [name for name in patterns if name != "out"]),
        ("an input", list(decided.inputs)),
        ("a parameter", list(decided.params)),
        ("a wildcard", wildcards(next(iter(patterns.values())))),
    ]
    for kind, names in kinds:
        for name in names:
            if name in seen:
                raise RuleError(f"{name} is {seen[name]} and {kind}", [("name", name)], ["rename one of them"])
            if not name.isidentifier():
                raise RuleError(f"{name!r} is no name", [], ["a name is letters, digits and _"])
            seen[name] = kind


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in LATER:
            raise RuleError(
                f"{name}= is reserved and not offered in this version",
                [("given", repr(value))],
                ["drop it; as the name of an input or parameter write inputs={…} or parameters={…}"],
            )
        if name not in OPTIONS:
            raise RuleError(f"{name}= is no option", [("options", ", ".join(sorted(OPTIONS)))], [f"drop {name}="])
        try:
            planning.check_option(name, value)
        except ValueError:
            raise RuleError(
                f"{name}= takes {OPTIONS[name]}",
                [("given", repr(value))],
                [f"{name} is a reserved word; an input of this name goes into inputs={{{name!r}: …}}"],
            ) from None


def _caller() -> Where:
    """The line of the rule file that called into this module."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    file = frame.f_code.co_filename
    if loading is not None:
        file = file.removeprefix(f"{loading.root}/")
    return Where(file, frame.f_lineno)


def _at(where: Where, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`; an error it raises is told with the place of the rule."""
    try:
        return function(*arguments)
    except (RuleError, Misuse) as error:
        if error.where is None:
            error.where = where
        raise
