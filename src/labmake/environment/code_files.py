"""The project files that a recipe runs: found from its text without running it, each with what identifies it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from functools import cached_property
from pathlib import Path

from labmake.environment import code_words
from labmake.environment.code_closure import Closure, CodeFile, Texts, by_bytes, union
from labmake.environment.code_functions import Explained, Function, Functions
from labmake.environment.code_imports import facts_of, python_closure
from labmake.environment.code_lookup import (
    find_recipe_file,
    first_file,
    not_found,
    other_experiment,
    places,
    refuse_own_folder,
    two_candidates,
)
from labmake.environment.code_tree import Tree, editable_roots, find_dotted, join, site_folders
from labmake.errors import RuleError
from labmake.layout import experiment_of, script_folder
from labmake.model import Digest, Json, digest_of

__all__ = ["Closure", "CodeFile", "CodeReader", "by_bytes", "union"]

R_FILES = (".Rprofile", "renv/activate.R", "renv.lock")
"""Files at the root that every R process reads."""

JULIA_FILES = ("JuliaProject.toml", "Project.toml", "JuliaManifest.toml", "Manifest.toml")
"""Files at the root that say which packages a Julia process loads."""

_AT_ROOT = {"r": R_FILES, "julia": JULIA_FILES}


class CodeReader:
    """Finds closures in one state of the project; make a new one when files may have changed.

    `digest` gives the digest of a project path's bytes (from a stat cache; raises FileNotFoundError). `memo` keeps what
    was read from a file's text, as JSON, under keys that begin with the file's digest: with the same memo no file is
    parsed twice. What imports mean is found anew each time, since it also depends on files that are absent.
    `sites` are the site-packages whose `.pth` files may put project folders on Python's path. `keep` stores the texts
    that functions' identities are the digests of, for `labmake why`.
    """

    def __init__(
        self,
        root: Path,
        digest: Callable[[str], Digest],
        memo: MutableMapping[str, Json],
        sites: Sequence[str] | None = None,
        keep: Callable[[bytes], Digest] = digest_of,
    ) -> None:
        self.root = root
        self.tree = Tree(root)
        self._texts = Texts(root, digest, memo)
        self._functions = Functions(self._texts, keep)
        self._sites = site_folders() if sites is None else sites
        self._closures: dict[tuple[str, str, str], Closure] = {}

    @cached_property
    def editable(self) -> tuple[str, ...]:
        """Project folders that an editable install puts on Python's path, beside `src` and the root."""
        return tuple(path for path in editable_roots(self.root, self._sites) if path not in ("", "src"))

    def find_recipe_file(self, file: str, experiment: str) -> str:
        """The project path of a recipe's file as written in an experiment's script (or in rules.py, experiment "").

        Looked up beside script.py, then from the root; `./x` only beside script.py, `/x` only from the root.
        Raises RuleError when there is none or more than one.
        """
        return find_recipe_file(self.tree, file, experiment)

    def find_file(self, file: str, experiment: str, what: str) -> str:
        """As find_recipe_file, for a file that an option names; `what` is how errors call it."""
        refuse_own_folder(file, experiment)
        found = [path for path in places(file, experiment) if self.tree.is_file(path)]
        if len(found) > 1:
            raise two_candidates(file, found)
        if not found:
            raise not_found(f"{what} finds no file", self.tree, file, experiment)
        return found[0]

    def has_function(self, file: str, name: str) -> bool:
        """May the Python file `file` define `name`? True when that can only be known by running it.

        A plan function is none that a step can call. Raises RuleError for a syntax error.
        """
        facts = facts_of(self._texts, file)[1]
        first = name.partition(".")[0]
        return first in facts["names"] or (facts["open"] and first not in facts["plans"])

    def functions(self, file: str) -> list[str]:
        """The names that a Python file binds at its top level, in order, without its plan functions."""
        return list(facts_of(self._texts, file)[1]["names"])

    def python(self, file: str, experiment: str) -> Closure:
        """The Python file `file` (a project path) and all project files that it imports, directly or not.

        Modules are looked for in the folder of `file`, in `src/`, at the root, and where editable installs point.
        Raises RuleError for a syntax error in any of them, FileNotFoundError if `file` is absent.
        """
        key = ("python", experiment, file)
        if key not in self._closures:
            roots = self.roots(file.rpartition("/")[0])
            self._closures[key] = python_closure(self._texts, self.tree, [file], roots)
        return self._closures[key]

    def function(self, file: str, experiment: str, name: str, pickled: bool = False) -> Closure:
        """The files of python(), each identified by what of it the function `name` can reach ("" for nothing).

        `pickled`: an input of its step is a pickle file, which may hold objects of any class of the closure.
        """
        roots = self.roots(file.rpartition("/")[0])
        return self._functions.closure(Function(file, name, pickled), self.python(file, experiment), roots)

    def explained(self, file: str, experiment: str, name: str, pickled: bool, path: str) -> dict[str, Explained]:
        """What of the file `path` that function reaches, by label; "*" for the file itself."""
        roots = self.roots(file.rpartition("/")[0])
        function = Function(file, name, pickled)
        return self._functions.explained(function, self.python(file, experiment), roots, path)

    def script(self, file: str, experiment: str) -> Closure:
        """A script in any language and all project files that it names as code, directly or not.

        Python imports; R's and Julia's source and include; what shell sources, and its words. A name is looked up
        beside the file that has it, and beside script.py or else from the root. Other languages: the file alone.
        Raises RuleError for a syntax error in a Python file, FileNotFoundError if `file` is absent.
        """
        key = ("script", experiment, file)
        if key not in self._closures:
            self._closures[key] = self._script(file, experiment)
        return self._closures[key]

    def command(self, text: str, experiment: str) -> Closure:
        """The project files that a shell command's words name, each with its own closure; `python -m` too.

        Words with placeholders, absolute paths, folders and files in generated/ are no code.
        Raises RuleError for a word in the experiment's own folder, which has to be written `./x`, or in another's.
        """
        key = ("command", experiment, text)
        if key not in self._closures:
            self._closures[key] = self._command(text, experiment)
        return self._closures[key]

    def _command(self, text: str, experiment: str) -> Closure:
        words = [word for word in code_words.command_words(text) if not word.startswith("/")]
        closures = []
        for word in words:
            refuse_own_folder(word, experiment)
            path = first_file(self.tree, word, experiment)
            if path is not None:
                owner = experiment_of(path)
                if owner is not None and owner != experiment:
                    raise other_experiment(word, owner)
                closure = self.script(path, experiment)
                # `wc -l src/a.py` reads the comments that `python src/a.py` does not.
                closures.append(closure if code_words.only_run(text, word) else by_bytes(closure))
        closures += [self._module(name, experiment) for name in code_words.modules_run(text)]
        if any(posixpath.basename(word) in ("R", "Rscript") for word in words):
            closures += [self.script(name, "") for name in R_FILES if self.tree.is_file(name)]
        if any(posixpath.basename(word) == "julia" for word in words):
            closures += [self.script(name, "") for name in JULIA_FILES if self.tree.is_file(name)]
        return union(closures)

    def extra(self, patterns: Iterable[str], experiment: str) -> Closure:
        """The code that `code=[…]` adds: files, folders with all in them, shell patterns, and what these import.

        Paths are looked up like a recipe's file. Raises RuleError for one that finds nothing, or things at both places.
        """
        closures = []
        for pattern in patterns:
            refuse_own_folder(pattern, experiment)
            found = {place: paths for place in places(pattern, experiment) if (paths := self._matching(place))}
            if not found:
                raise not_found(f"code=[{pattern!r}] finds no file", self.tree, pattern, experiment)
            if len(found) > 1:
                raise two_candidates(pattern, list(found))
            for place, paths in found.items():
                closures += [self._extra(path, experiment, path == place) for path in paths]
        return union(closures)

    def roots(self, first: str) -> list[str]:
        """Python's path as project folders, for a recipe file in the folder `first`."""
        return list(dict.fromkeys([first, "src", "", *self.editable]))

    def imports(self, path: str) -> list[tuple[int, str, list[str]]]:
        """(dots before the name, module, names) of each import in a Python file, wherever it stands."""
        return [(level, module, names) for level, module, names in facts_of(self._texts, path)[1]["imports"]]

    def is_module(self, name: str, roots: Sequence[str]) -> bool:
        """Whether an import of `name` reads a project file, with `roots` as Python's path."""
        return bool(find_dotted(self.tree, name, roots)[0])

    def said(self, path: str, kind: str, analyse: Callable[[bytes, str], Json]) -> Json:
        """What `analyse` (named `kind`) says of a file's bytes, read once per content. Raises OSError."""
        return self._texts.read(path, kind, analyse)[1]

    def language(self, path: str) -> str:
        """The language a file is written in, by its name or its first line: python, r, shell, julia, or ""."""
        by_name = code_words.language(path)
        return code_words.shebang_language(self._texts.start(path)) if by_name is None else by_name

    def _module(self, name: str, experiment: str) -> Closure:
        """What `python -m name` runs, with the step folder first on Python's path."""
        roots = self.roots(script_folder(experiment))
        files, folders = find_dotted(self.tree, name, roots)
        files += find_dotted(self.tree, "__main__", folders)[0] if folders else []
        return python_closure(self._texts, self.tree, files, roots)

    def _script(self, file: str, experiment: str) -> Closure:
        closures: list[Closure] = []
        files: dict[str, CodeFile] = {}
        pending = [file]
        while pending:
            path = pending.pop()
            if path in files:
                continue
            kind = self.language(path)
            if kind == "python":
                closure = self.python(path, experiment)
                # A shell script may run the Python files it names or read them.
                closures.append(closure if path == file else by_bytes(closure))
            elif kind:
                digest, names = self._texts.read(path, f"{kind} {code_words.KIND}", code_words.READERS[kind])
                files[path] = CodeFile(path, digest, digest)
                pending += self._named(path, names, experiment)
                pending += [name for name in _AT_ROOT.get(kind, ()) if self.tree.is_file(name)]
            else:
                files[path] = self._texts.bytes_only(path)
        return union([*closures, Closure(tuple(files.values()))])

    def _named(self, path: str, names: Iterable[str], experiment: str) -> list[str]:
        """The project files that a script's strings mean: one beside it, and one where the step's process starts.

        Both, because only the script knows whether it changes folder first.
        """
        folder = path.rpartition("/")[0]
        found: list[str] = []
        for name in (name for name in names if not name.startswith("/")):
            beside = posixpath.normpath(join(folder, name))
            start = first_file(self.tree, name.removeprefix("./"), experiment)
            found += [beside] if self.tree.is_file(beside) else []
            found += [start] if start is not None else []
        return [name for name in found if experiment_of(name) in (None, experiment)]

    def _matching(self, path: str) -> list[str]:
        if self.tree.is_file(path):
            return [path]
        if self.tree.is_folder(path):
            return list(self.tree.walk(path))
        import glob

        found: dict[str, None] = {}
        for match in sorted(glob.glob(path, root_dir=self.root, recursive=True)) if glob.has_magic(path) else ():
            name = match.rstrip("/")
            if self.tree.is_file(name):
                found[name] = None
            elif self.tree.is_folder(name):
                found.update(dict.fromkeys(self.tree.walk(name)))
        return list(found)

    def _extra(self, path: str, experiment: str, named: bool) -> Closure:
        if self.language(path) != "python":
            return self.script(path, experiment)
        # Python's path is that of the recipe, not of this file: its own folder comes last.
        roots = list(dict.fromkeys([*self.roots(script_folder(experiment)), path.rpartition("/")[0]]))
        own = Closure((self._texts.bytes_only(path),))
        try:
            # Nobody says whether it is imported or read, so its bytes count.
            return union([python_closure(self._texts, self.tree, [path], roots), own])
        except RuleError:
            if named:
                raise
            # A folder may hold templates and test data that only look like Python.
            return own
