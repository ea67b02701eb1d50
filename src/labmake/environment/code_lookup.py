"""Which project file a path written in a recipe or a shell command means, and what to say if there is none."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from labmake.environment.code_tree import Tree, join
from labmake.errors import RuleError
from labmake.layout import GENERATED, SCRIPTS, script_folder


def places(written: str, experiment: str) -> list[str]:
    """The project paths that `written` may mean, in the order in which they are tried; none if it leaves the project.

    Beside script.py, then from the root; `./x` only beside script.py, `/x` only from the root.
    """
    beside = script_folder(experiment)
    folders = (
        []
        if not written
        else [beside]
        if written.startswith("./")
        else [""]
        if written.startswith("/")
        else [beside, ""]
    )
    paths = [posixpath.normpath(join(folder, written.lstrip("/"))) for folder in folders]
    return list(dict.fromkeys(p for p in paths if p not in (".", "..") and not p.startswith("../") and "\0" not in p))


def first_file(tree: Tree, written: str, experiment: str) -> str | None:
    """The first of these places that is a file."""
    return next((path for path in places(written, experiment) if tree.is_file(path)), None)


def find_recipe_file(tree: Tree, file: str, experiment: str) -> str:
    """The project path of a recipe's file. Raises RuleError when there is none or more than one."""
    refuse_own_folder(file, experiment)
    tried = places(file, experiment)
    found = [path for path in tried if tree.is_file(path)]
    if len(found) > 1:
        raise two_candidates(file, found)
    if not found:
        raise not_found(f"the file {file} of a recipe does not exist", tree, file, experiment)
    return found[0]


def refuse_own_folder(written: str, experiment: str) -> None:
    """Raise RuleError if `written` spells out the experiment's own folder."""
    own = script_folder(experiment)
    path = written.lstrip("/")
    if own and path.startswith(f"{own}/"):
        raise RuleError(
            f"{written} names the experiment's own folder",
            [("written", written), ("experiment", experiment)],
            [f"write ./{path[len(own) + 1 :]}, which stays right when the experiment is copied"],
        )


def two_candidates(written: str, found: Sequence[str]) -> RuleError:
    """The error for a path that means two files."""
    return RuleError(
        f"{written} may mean two files",
        [("beside script.py", found[0]), ("from the root", found[1])],
        [f"write ./{written} for the first or /{written} for the second"],
    )


def other_experiment(written: str, owner: str) -> RuleError:
    """The error for a command that names the code of another experiment."""
    return RuleError(
        f"{written} is code of another experiment",
        [("written", written), ("experiment", owner)],
        ["move what both need to src/, or copy it"],
    )


def not_found(what: str, tree: Tree, written: str, experiment: str) -> RuleError:
    """The error for a path that means nothing, with the places looked at and the files with the nearest names."""
    tried = places(written, experiment)
    facts: list[tuple[str, object]] = [("looked for", path) for path in tried]
    near = _nearest(tree, written, experiment)
    if near:
        facts.append(("nearest", ", ".join(near)))
    if not tried:
        return RuleError(what, [("written", written)], ["name a file of the project"])
    if any(path.startswith(f"{GENERATED}/") for path in tried):
        return RuleError(what, facts, ["code is never generated: make the file an input of the rule"])
    return RuleError(what, facts, [f"write {near[0]}" if near else "correct the name or create the file"])


def _nearest(tree: Tree, written: str, experiment: str) -> list[str]:
    """Up to three files whose names are most like `written`, each as it would be written."""
    import difflib

    beside = script_folder(experiment)
    files = {path[len(beside) + 1 :] if beside else path: path for path in tree.walk(beside)} if beside else {}
    for path in tree.walk("src"):
        files.setdefault(path, path)
    for name in tree.listing("")[0]:
        files.setdefault(name, name)
    if not beside:
        files |= {path: path for path in tree.walk("") if not path.startswith(f"{SCRIPTS}/")}
    target = written.removeprefix("./").lstrip("/")
    by_path = difflib.get_close_matches(target, sorted(files), n=3, cutoff=0.75)
    last = posixpath.basename(target)
    by_name = [
        name for name in sorted(files) if difflib.SequenceMatcher(None, last, posixpath.basename(name)).ratio() > 0.7
    ]
    return list(dict.fromkeys([*by_path, *by_name]))[:3]
