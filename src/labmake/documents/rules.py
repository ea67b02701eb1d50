"""The built-in rules of documents: every Markdown file beside script.py becomes a PDF and an HTML page in outputs/.

Each is a plan: it fills in the values (reading them makes them), then knows which figures and other files the text
names, and decides on one rendering step that gets exactly these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from labmake.engine.patterns import wildcards
from labmake.engine.plan import listdir, read_text
from labmake.errors import NoRule, RuleError, Where
from labmake.layout import Project, generated_folder, script_folder, short
from labmake.model import FORMAT, Recipe, Rule, Spec, Step, canonical, digest_of

NOT_DOCUMENTS = ("readme.md", "changelog.md", "license.md", "contributing.md")


def document_rules(project: Project, experiment: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules of an experiment's documents; `rules` are the user's, among whose outputs values are found by name."""
    folder = script_folder(experiment)
    try:
        names = sorted(os.listdir(project.root / folder if folder else project.root))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = [name for name in names if name.endswith(".md") and name.lower() not in NOT_DOCUMENTS]
    if not experiment:
        found = [name for name in found if name == "report.md"]
    candidates = _values_by_name(rules, experiment)
    return tuple(_rule(experiment, name, kind, candidates) for name in found for kind in ("pdf", "html"))


def _rule(experiment: str, name: str, kind: str, candidates: Mapping[str, list[str]]) -> Rule:
    folder = script_folder(experiment)
    file = f"{folder}/{name}" if folder else name
    target = f"{generated_folder(experiment)}/outputs/{name[:-3]}.{kind}"
    text = canonical(["document", FORMAT, file, kind, candidates, _look()])
    return Rule({kind: target}, experiment, Where(file), digest_of(text.encode()), plan=_plan(name, candidates))


def _plan(name: str, candidates: Mapping[str, list[str]]) -> Callable[[], Step]:
    look = _look()

    def decide() -> Step:
        from labmake.documents.markdown import front_matter, references
        from labmake.documents.values import expand

        text = read_text(f"./{name}").replace("\r\n", "\n").removeprefix("\ufeff")
        named = front_matter(text, name).get("values") or {}
        used: dict[str, str] = {}

        def value(word: str) -> object:
            used[word] = path = str(named[word]) if word in named else _path_of(word, candidates, name)
            return _read(path)

        beside = listdir("./")
        files = [_path(file, beside) for file in references(expand(text, name, value)).files]
        inputs: dict[str, Spec] = {"document": f"./{name}", "values": used, "files": files}
        return Step(Recipe("document", "labmake.documents.render"), inputs, {"look": look, "name": name}, {})

    return decide


def _path(written: str, beside: list[str]) -> str:
    """A file that a document names, as an input: a bare name that lies beside the document is that file."""
    return f"./{written}" if written in beside else written


def _read(path: str) -> object:
    from labmake.documents.values import parse

    return parse(path, read_text(path).encode())


def _path_of(word: str, candidates: Mapping[str, list[str]], name: str) -> str:
    paths = candidates.get(word, [])
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise RuleError(
            f"{word} may mean several results",
            [("candidate", path) for path in paths],
            [f"say which in the front matter of {name}:  values: {{{word}: {paths[0]}}}"],
            Where(name),
        )
    import difflib

    near = difflib.get_close_matches(word, candidates, 3, 0.4)
    raise NoRule(
        f"{name} uses {word}, and no rule makes a JSON or CSV file of that name",
        [("nearest", ", ".join(f"{n} ({candidates[n][0]})" for n in near) or "none")],
        [f"correct the name, or say what it is in the front matter:  values: {{{word}: data/file.json}}"],
        Where(name),
    )


def _values_by_name(rules: tuple[Rule, ...], experiment: str) -> dict[str, list[str]]:
    """stem of a JSON or CSV target → its short paths."""
    found: dict[str, list[str]] = {}
    for rule in rules:
        for pattern in rule.outputs.values():
            stem, _, suffix = pattern.rpartition("/")[2].rpartition(".")
            if suffix in ("json", "csv", "tsv") and not wildcards(pattern) and re.fullmatch(r"[A-Za-z_]\w*", stem):
                found.setdefault(stem, []).append(short(pattern, experiment))
    return found


@lru_cache(maxsize=1)
def _look() -> str:
    from labmake.documents.look import look_digest

    return look_digest()
