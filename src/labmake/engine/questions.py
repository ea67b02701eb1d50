"""Questions: keys that are no targets. Slices, the keys of a file, listings, variables, code, environment.

Each is answered by a generator that yields the keys it needs and returns an Answer or Failed. An answer's digest is
what dependents compare, so a question is as narrow as its use: `?keys` of a file changes only when a key does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from labmake.data import slices
from labmake.engine.outputs import read_target
from labmake.engine.patterns import compiled, glob_expression, match, parse, wildcards
from labmake.engine.plan import Answer, Failed, Result, Unknown
from labmake.engine.rulebook import nearest
from labmake.engine.services import Services
from labmake.environment.code_files import Closure, by_bytes
from labmake.environment.environments import Environment
from labmake.errors import NoRule, RuleError, StoreError
from labmake.frozen import frozen
from labmake.layout import GENERATED, experiment_of, short
from labmake.model import Digest, Fact, Key, canonical, digest_of
from labmake.store.digest import Entry, parse_manifest, render_manifest, scan_folder

Asking = Generator[Sequence[Key], Sequence[Result], Result]


def content(services: Services, answer: Answer) -> bytes:
    """The bytes behind an answer."""
    return answer.data if answer.data is not None else read_target(services, answer.digest, answer.origin)


def of_json(value: Any) -> Answer:
    """The answer whose content is a JSON value."""
    try:
        data = canonical(value).encode()
    except UnicodeEncodeError as error:
        raise RuleError(
            "the name of a file is not UTF-8",
            [("name", repr(error.object[max(0, error.start - 40) : error.end + 40]))],
            ["rename the file, or leave it out of the pattern"],
        ) from None
    return Answer(digest_of(data), data)


def slice_of(services: Services, path: str, key: str) -> Asking:
    """One element of a file, as its own small file."""
    (result,) = yield [path]
    if not isinstance(result, Answer):
        return result
    found = _elements(services, path, result)
    if key not in found:
        name = short(path, experiment_of(path) or "")
        return Failed(slices.no_such_key(name, key, list(found)), f"{path}#{key}")
    data = found[key]
    return Answer(services.keep(data), data)


def _elements(services: Services, path: str, answer: Answer) -> dict[str, bytes]:
    if answer.digest not in services.slices:
        services.slices[answer.digest] = slices.elements(path, content(services, answer))
    return services.slices[answer.digest]


def question(services: Services, key: Key) -> Asking:
    """The answer to a key that begins with `?`."""
    word, _, rest = key[1:].partition(" ")
    answer: Result = yield from _ANSWERS[word](services, rest)
    return answer


def _keys(services: Services, path: str) -> Asking:
    (result,) = yield [path]
    return of_json(list(_elements(services, path, result))) if isinstance(result, Answer) else result


def _try(services: Services, key: str) -> Asking:
    (result,) = yield [key]
    return Answer("failed") if isinstance(result, Failed) else result


def _env(services: Services, name: str) -> Asking:
    yield from ()
    services.variables[name] = os.environ.get(name)
    return of_json(services.variables[name])


def _environment(services: Services, text: str) -> Asking:
    """`text` is `all`, `files` and a JSON object (place → project file), or that of a question for code."""
    if text.startswith("["):
        (code,) = yield [f"?code {text}"]
        if not isinstance(code, Answer):
            return code
    return Answer(services.keep(environment_of(services, text).text.encode()))


def environment_of(services: Services, text: str) -> Environment:
    """The environment that a question asks for."""
    found = services.surroundings.get(text)
    if found is None:
        if text in ("all", ""):  # facts of the first builds asked without a word
            found = services.environments.everything()
        elif text.startswith("files "):
            found = services.environments.of_files(json.loads(text[6:]))
        else:
            found = services.environments.of_step(json.loads(text), code_closure(services, text))
        services.surroundings[text] = found
    return found


def installed_key(loaded: Mapping[str, str]) -> tuple[Key, str]:
    """The question whether distributions (name → version) are installed in these versions, and the answer for yes."""
    text = canonical(dict(loaded))
    return f"?installed {text}", digest_of(text.encode())


def loaded_of(fact: Fact) -> dict[str, str]:
    """The distributions that a fact has in the versions that its step imported, beyond its environment."""
    keys = (key for group in fact.groups for key, _ in group if key.startswith("?installed "))
    return {name: version for key in keys for name, version in json.loads(key.partition(" ")[2]).items()}


def _installed(services: Services, text: str) -> Asking:
    """`text` is a JSON object, distribution → version."""
    yield from ()
    return Answer(digest_of(canonical(services.environments.versions(json.loads(text))).encode()))


def _code(services: Services, text: str) -> Asking:
    """`text` is the JSON list that nodes.code_key makes."""
    yield from ()
    closure = code_closure(services, text)
    by_bytes = text.startswith('["plan"')  # a plan may be anywhere in its file, and replaying it is cheap
    lines = [f"{f.path} {f.digest if by_bytes else f.identity}" for f in closure.files if by_bytes or f.identity]
    return Answer(digest_of("\n".join(lines).encode()))


def code_closure(services: Services, text: str) -> Closure:
    """The files of a step's code. Raises RuleError if a file or function does not exist, or cannot be parsed."""
    if text not in services.closures:
        services.closures[text] = _code_closure(services, text)
    return services.closures[text]


def _code_closure(services: Services, text: str) -> Closure:
    kind, what, function, experiment, extra, interpreter, *pickled = json.loads(text)
    code = services.code
    if kind == "document":
        closure = Closure(())
    elif kind == "plan":
        closure = code.python(what, experiment)
    elif kind == "sh":
        closure = code.command(what, experiment)
    else:
        file = code.find_recipe_file(what, experiment)
        if kind == "script":
            closure = code.script(file, experiment)
            if file.endswith(".py") and not os.path.basename(interpreter.split(" ")[0]).startswith("python"):
                closure = by_bytes(closure)  # what another program reads of a Python file may be its comments
        else:
            closure = code.python(file, experiment)
            if function and not code.has_function(file, function.split(".")[0]):
                raise RuleError(
                    f"{file} has no function {function}",
                    [("file", file), ("has", ", ".join(code.functions(file)[:12]) or "none")],
                    ["correct the name in py(…), or define the function"],
                )
            if function:
                closure = code.function(file, experiment, function, bool(pickled))
    if extra:
        more = code.extra(extra, experiment)
        files = {file.path: file for file in (*closure.files, *more.files)}
        closure = Closure(tuple(files[path] for path in sorted(files)))
    return closure


def _list(services: Services, folder: str) -> Asking:
    if not folder.startswith(f"{GENERATED}/"):
        try:
            services.looked.add(services.absolute(folder))
            return of_json(sorted(os.listdir(services.absolute(folder))))
        except (FileNotFoundError, NotADirectoryError):
            return Failed(NoRule(f"there is no folder {folder}", [("folder", folder)]), folder)
    paths = yield from _folder_files(services, folder)
    if isinstance(paths, Failed | Unknown):
        return paths
    return of_json(sorted({path[len(folder) :].split("/", 1)[0] for path in paths if path.startswith(folder)}))


def _find(services: Services, pattern: str) -> Asking:
    paths = yield from _files_below(services, pattern, "find()")
    if isinstance(paths, Failed | Unknown):
        return paths
    names = wildcards(pattern)
    compiled(pattern)
    found = []
    for path in sorted(paths):
        matched = match(pattern, path)
        if matched is not None:
            found.append([[matched.binding[name] for name in names], path])
    return of_json(found)


def _glob(services: Services, pattern: str) -> Asking:
    paths = yield from _files_below(services, pattern, "glob()")
    if isinstance(paths, Failed | Unknown):
        return paths
    expression = re.compile(glob_expression(pattern))
    return of_json(sorted(path for path in paths if expression.fullmatch(path)))


def _files_below(
    services: Services, pattern: str, who: str
) -> Generator[Sequence[Key], Sequence[Result], list[str] | Failed | Unknown]:
    """All files below the literal folder with which a pattern begins: of a folder target, or of the worktree."""
    literal = parse(pattern)[0][1] if who == "find()" and not parse(pattern)[0][0] else pattern
    if who == "glob()":
        literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    folder = literal.rpartition("/")[0]
    folder = folder + "/" if folder else ""
    if folder.startswith(f"{GENERATED}/") or folder == f"{GENERATED}/":
        return (yield from _folder_files(services, folder, who))
    return list(_worktree_files(services, folder))


def _folder_files(
    services: Services, folder: str, who: str = "listdir()"
) -> Generator[Sequence[Key], Sequence[Result], list[str] | Failed | Unknown]:
    """The project paths of all files in the folder target that is, or holds, `folder`."""
    parts = folder.rstrip("/").split("/")
    for count in range(len(parts), 0, -1):
        target = "/".join(parts[:count]) + "/"
        try:
            found = services.rulebook.find(target)
        except NoRule:
            continue
        if found.inside or target not in found.outputs.values():
            continue
        (result,) = yield [target]
        if isinstance(result, Failed | Unknown):
            return result
        return [target + entry.path for entry in parse_manifest(content(services, result)) if entry.kind != "d"]
    error = RuleError(
        f"{who} looks in {folder}, which is no folder target",
        [("folder", folder)],
        ["over generated files it works inside folder targets only: use each(…) over a list of what there is"],
    )
    return Failed(error, folder)


def _worktree_files(services: Services, folder: str) -> Iterator[str]:
    """The files below a folder of the worktree; generated, hidden and cache folders are left out."""
    try:
        services.looked.add(services.absolute(folder or "."))
        entries = sorted(os.scandir(services.absolute(folder or ".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # a database's folder may lie in the project
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__pycache__" or (not folder and entry.name == GENERATED):
            continue
        if entry.is_dir():
            yield from _worktree_files(services, f"{folder}{entry.name}/")
        else:
            yield folder + entry.name


def folder_of_files(services: Services, path: str) -> Answer:
    """The answer for a folder of the worktree (or outside of it): its manifest is kept as a blob, its files are not."""
    absolute = services.absolute(path) if not path.startswith("/") else path.rstrip("/")
    services.looked.update(base for base, _, _ in os.walk(absolute))
    data = render_manifest(scan_folder(absolute, services.stats.digest))
    return Answer(services.keep(data) + "/", data, absolute)


@frozen
class Hash:
    """A request to the scheduler: have a thread hash the file at an absolute path. The answer is what hash_file returns
    or raises."""

    path: str


def of_large_file(services: Services, path: str) -> Generator[Hash, Any, Result]:
    """As of_file, for a file that takes long to hash."""
    absolute = services.absolute(path)
    began = services.stats.clock()
    found = yield Hash(absolute)
    if not isinstance(found, BaseException):
        return of_file(services, path, services.stats.enter(absolute, began, *found))
    if not isinstance(found, OSError):
        raise found
    return of_file(services, path)


def of_file(services: Services, path: str, digest: Digest | None = None) -> Result:
    """The answer for a file or folder that no rule makes: a path of the worktree, or an absolute one.

    `digest` is that of the file's content, if it was hashed just now.
    """
    absolute = services.absolute(path)
    try:
        if path.endswith("/"):
            if not os.path.isdir(absolute):
                raise FileNotFoundError(absolute)
            return folder_of_files(services, path)
        mark = "*" if os.stat(absolute).st_mode & 0o100 else ""
        return Answer((digest or services.stats.digest(absolute)) + mark, None, absolute)
    except IsADirectoryError:
        return Failed(
            RuleError(f"{path} is a folder", [("path", path)], [f"write {path}/ to take the whole folder"]), path
        )
    except FileNotFoundError:
        return Failed(_missing(services, path), path)
    except OSError as error:
        advice = "it has to be a file or folder that you may read"
        return Failed(StoreError(f"{path} cannot be read", [("reason", error.strerror)], [advice]), path)


def _missing(services: Services, path: str) -> NoRule:
    import difflib

    folder, _, name = path.rstrip("/").rpartition("/")
    try:
        there = os.listdir(os.path.join(services.project.root, folder))
    except OSError:
        there = []
    near = difflib.get_close_matches(name, there, 3, 0.5)
    facts: list[tuple[str, object]] = [("file", path)]
    if near:
        facts.append(("nearest", ", ".join(f"{folder}/{n}" if folder else n for n in near)))
    return NoRule(
        f"there is no file {path}, and no rule makes it",
        facts,
        [
            "correct the path: a short path (data/x.csv) is generated, ./x lies beside script.py, /x at the root",
            *([f"to use /{path}, which lies outside of the project: source(…)"] if os.path.exists(f"/{path}") else []),
        ],
    )


def inside_folder(services: Services, folder: str, answer: Answer, inside: str) -> Result:
    """The answer for a file in a folder target."""
    if answer.digest not in services.manifests:  # each of its files may be another step's input
        listed = parse_manifest(services.blobs.read(answer.digest))
        services.manifests[answer.digest] = {entry.path: entry for entry in listed}
    entries = services.manifests[answer.digest]
    entry = entries.get(inside)
    if entry is not None and entry.kind in "fx":
        return Answer(entry.digest)
    if inside.endswith("/"):
        below = [e for e in entries.values() if e.path.startswith(inside)]
        if below:
            data = render_manifest([Entry(e.kind, e.path[len(inside) :], e.value) for e in below])
            return Answer(services.keep(data) + "/", data)
    near = nearest(inside, entries)
    return Failed(
        NoRule(
            f"the folder {folder} has no file {inside}",
            [("folder", folder), ("holds", ", ".join(near) + (" …" if len(entries) > len(near) else "") or "nothing")],
        ),
        folder + inside,
    )


_ANSWERS = {
    "keys": _keys,
    "try": _try,
    "env": _env,
    "environment": _environment,
    "installed": _installed,
    "code": _code,
    "list": _list,
    "find": _find,
    "glob": _glob,
}
