"""The software around a step as a text: of all that is installed, what its code asks for. `Environments` finds it.

Lines are `name version`; two texts differ in lines that a person can read:

    python CPython 3.11
    platform linux-x86_64
    numpy 2.1.0

Of a Python step these three kinds. A shell command or a script in another language has the platform, `flake.lock`, and
interpreter and packages only of the languages in which it, or a file it names, is written.
"""

from __future__ import annotations

import os
import posixpath
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labmake.environment import interpreters, locks
from labmake.environment.code_closure import Closure
from labmake.environment.code_files import CodeReader
from labmake.environment.installed import Installed, folders_of, look, mismatches, plain_digest
from labmake.environment.interpreters import Python
from labmake.errors import LabmakeError, RuleError
from labmake.frozen import frozen
from labmake.model import Digest, Json

if TYPE_CHECKING:
    from labmake.environment import r_packages

BUILT_IN = {"labmake.documents.render": ("jinja2", "pypandoc", "typst", "yaml", "font_source_sans_pro")}
"""What labmake's own steps import, by their program. A test compares it with their text."""

EVERY = 1.0
"""Seconds after which a build looks again whether somebody installs something."""

_FLAKE = {"flake.lock": "flake.lock"}


@frozen
class Environment:
    """An environment's text, and the distributions in it; None if what a step imports beside them does not count."""

    text: str
    names: tuple[str, ...] | None = None


class _Wanted:
    """What the code of a step asks for.

    `everything`: whether Python code imports what only its run shows, in a process that nobody asks afterwards;
    `any_package`: whether R code does.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self.modules = set(modules)
        self.words: set[str] = set()
        self.pythons: set[str] = set()
        self.packages: set[str] = set()
        self.languages: set[str] = set()
        self.everything = self.any_package = False


class Environments:
    """Finds environments in one state of the machine; make a new one when software may have changed.

    `digest` gives the digest of a file (project path or absolute; raises OSError), `memo` keeps what was read,
    `settled` says whether a time stamp is old enough to be trusted, `variables` are those of all steps; `looked`
    and `asked` learn the paths and variables whose change may change an environment.
    """

    def __init__(
        self,
        root: str,
        code: CodeReader,
        digest: Callable[[str], Digest],
        memo: MutableMapping[str, Json],
        settled: Callable[[int], bool],
        variables: Mapping[str, str],
        looked: set[str],
        asked: dict[str, str | None],
    ) -> None:
        self.root, self.code, self.digest, self.memo = root, code, digest, memo
        self.settled, self.variables, self.looked, self.asked = settled, variables, looked, asked
        self._installed: dict[tuple[str, ...], Installed] = {}
        self._texts: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        self._project: dict[tuple[str, tuple[str, ...]], bool] = {}
        self._named: set[str] = set()
        """Distributions of this interpreter that an environment of this build names."""
        self._used: set[str] = set()
        """Those, and what steps were found to have loaded."""
        self._stamps: dict[str, int] = {}
        self._checked = 0.0

    # Environments ------------------------------------------------------------------------------------------------

    def of_step(self, recipe: Sequence[Any], closure: Closure) -> Environment:
        """The environment of a step: `recipe` is [kind, file or command, function, experiment, …, interpreter]."""
        kind, what, _, experiment, _, interpreter, *_ = recipe
        if kind in ("function", "python", "document"):
            wanted = _Wanted(BUILT_IN[what] if kind == "document" else ())
            if kind != "document":
                first = posixpath.dirname(self.code.find_recipe_file(what, experiment))
                self._add_imports(wanted, closure, self.code.roots(first))
            owners = self._owners(self.here, wanted)
            lines = self._distributions(self.here, owners)
            names = None if kind == "document" else tuple(sorted(owners))
            return Environment(_text([self.here.line, _platform(), *lines]), names)
        wanted = self._wanted(what if kind == "sh" else interpreter, closure)
        lines = [_platform()]
        for python in self._pythons(wanted):
            names_here = set(self._at(python).distributions) if wanted.everything else self._owners(python, wanted)
            lines += [python.line, *self._distributions(python, names_here)]
        lines += self._r(wanted) if "r" in wanted.languages else []
        lines += self._julia() if "julia" in wanted.languages else []
        return Environment(_text([*dict.fromkeys(lines), *self._digests(_FLAKE)]))

    def everything(self) -> Environment:
        """All that is installed, and the other languages' interpreters."""
        from labmake.environment import r_packages

        names = set(self._at(self.here).distributions)
        lines = [self.here.line, _platform(), *self._distributions(self.here, names)]
        found = self._found_r
        if found is not None:
            lines += [f"R {found.version}", *self._r_versions(found, r_packages.all_packages(found))]
        return Environment(_text([*lines, *self._julia(), *self._digests(_FLAKE)]))

    def of_files(self, files: Mapping[str, str]) -> Environment:
        """These project files, by the names that tell them apart, and nothing else."""
        return Environment(_text(self._digests(files)))

    # What is installed -------------------------------------------------------------------------------------------

    @cached_property
    def here(self) -> Python:
        """labmake's own interpreter, which runs the Python steps."""
        return interpreters.own(self.root)

    def _at(self, python: Python) -> Installed:
        if python.path not in self._installed:
            if python.path == self.here.path:
                self._stamps = {folder: _stamp(folder) for folder in python.path}
            self._installed[python.path] = look(python.path, self.root, self.memo, self.settled)
            self.looked.update(python.path)
            self.looked.update(python.watched)
        return self._installed[python.path]

    @property
    def own(self) -> Installed:
        """What is installed for Python steps."""
        return self._at(self.here)

    def versions(self, names: Collection[str]) -> dict[str, str]:
        """The versions of distributions of labmake's interpreter as installed, "" of those that are not."""
        self._watch(self.own, names)
        self._used.update(names)
        return {name: self.own.version(name, self.digest) for name in names}

    def check(self) -> None:
        """Raise LabmakeError if a distribution that this build uses has been changed since it was looked at.

        Called before each step, it looks at the folders once in EVERY seconds.
        """
        now = time.monotonic()
        if now - self._checked < EVERY or not self._stamps:
            return
        self._checked = now
        stamps = {folder: _stamp(folder) for folder in self._stamps}
        if stamps == self._stamps:
            return
        fresh = look(self.here.path, self.root, self.memo, self.settled)
        for name in sorted(self._used):
            old, new = self.own.version(name, self.digest), fresh.version(name, self.digest)
            if old != new:
                raise LabmakeError(
                    f"{name} was changed while the build runs",
                    [("when it began", old or "not installed"), ("now", new or "not installed")],
                    ["build again: what was made until now is kept"],
                )
        self._stamps = stamps

    def told_to_workers(self) -> Callable[[list[str] | None, list[str]], Mapping[str, str]]:
        """A function for other processes, which cannot use this build's memo: the versions of the distributions that
        bring these modules (None: of all that are installed), but for those that are named."""
        installed = self.own

        def versions(modules: list[str] | None, static: list[str]) -> Mapping[str, str]:
            found = installed.distributions if modules is None else [o for m in modules for o in installed.owners(m)]
            return {name: installed.version(name, plain_digest) for name in sorted({*found} - {*static})}

        return versions

    def counts(self, loaded: Mapping[str, str]) -> bool:
        """Whether the distributions that a step has loaded are still installed in these versions."""
        return not loaded or self.versions(loaded) == dict(loaded)

    def _distributions(self, python: Python, names: Iterable[str]) -> list[str]:
        """A line for each of these distributions; what they need has to be among them."""
        key = (python.line + "\0" + "\0".join(python.path), tuple(sorted(names)))
        if key not in self._texts:
            installed = self._at(python)
            self._watch(installed, key[1])
            if python.path == self.here.path:
                self._named.update(key[1])
                self._used.update(key[1])
            self._texts[key] = [f"{name} {installed.version(name, self.digest)}" for name in key[1]]
        return self._texts[key]

    def _watch(self, installed: Installed, names: Iterable[str]) -> None:
        for name in names:
            self.looked.update(installed.metadata.get(name, ()))
            for place in installed.sources(name):
                self.looked.update(folders_of(place))

    def _owners(self, python: Python, wanted: _Wanted) -> set[str]:
        """The distributions that bring these modules and commands, with what they need."""
        installed = self._at(python)
        found = {owner for module in wanted.modules for owner in installed.owners(module)}
        for word in wanted.words:
            found.update(installed.scripts.get(posixpath.basename(word), ()))
        return installed.with_needs(found)

    # What code asks for ------------------------------------------------------------------------------------------

    def _add_imports(self, wanted: _Wanted, closure: Closure, roots: Sequence[str]) -> None:
        """Add the modules that Python files import and that are no project files."""
        for file in closure.files:
            if self.code.language(file.path) != "python":
                continue
            wanted.languages.add("python")
            for level, module, names in self._imports(file.path):
                top = module.partition(".")[0]
                if level or top in sys.stdlib_module_names or top == "labmake" or self._is_project(top, roots):
                    continue
                wanted.modules.update(f"{module}.{name}" if name != "*" else module for name in names or "*")

    def _imports(self, path: str) -> list[tuple[int, str, list[str]]]:
        try:
            return self.code.imports(path)
        except RuleError:  # a template in a folder of code that only looks like Python: nobody imports it
            return []

    def _is_project(self, module: str, roots: Sequence[str]) -> bool:
        key = (module, tuple(roots))
        if key not in self._project:
            self._project[key] = self.code.is_module(module, roots)
        return self._project[key]

    def _wanted(self, command: str, closure: Closure) -> _Wanted:
        """What a command and the files it names ask for."""
        from labmake.environment import required

        wanted = _Wanted()
        self._add_imports(wanted, closure, self.code.roots("src"))
        said = [required.in_command(command)]
        for file in closure.files:
            language = self.code.language(file.path)
            wanted.languages.add(language)
            if language == "shell":
                said.append(self.code.said(file.path, f"shell {required.KIND}", required.in_shell_file))
            elif language == "python":
                told = self.code.said(file.path, f"python {required.KIND}", required.in_python_file)
                wanted.everything = wanted.everything or told["any"]
            elif language == "r":
                told = self.code.said(file.path, f"r {required.KIND}", required.in_r_file)
                wanted.packages.update(told["packages"])
                wanted.any_package = wanted.any_package or told["any"]
        for one in said:
            wanted.words.update(one["words"])
            wanted.pythons.update(one["python"])
            wanted.modules.update(one["modules"])
        programs = {posixpath.basename(word) for word in wanted.words}
        wanted.languages |= {"r"} if programs & {"R", "Rscript"} else set()
        wanted.languages |= {"julia"} if "julia" in programs else set()
        return wanted

    def _pythons(self, wanted: _Wanted) -> list[Python]:
        """The interpreters that a command starts, or that run a program which it starts."""
        words = sorted(wanted.pythons) or (["python3"] if "python" in wanted.languages else [])
        if words:
            self.asked.update({name: os.environ.get(name) for name in interpreters.VARIABLES})
        found = [interpreters.named(word, self.root, self.variables, self.memo) for word in words]
        found += [python for word in wanted.words for python in self._bringing(posixpath.basename(word))]
        return list(dict.fromkeys(python or self.here for python in found))

    def _bringing(self, program: str) -> list[Python]:
        """The interpreter that a program runs in which one of its distributions has brought."""
        import shutil

        known = [(folder, one) for folder, one in self._on_path if program in self._at(one).scripts]
        path = shutil.which(program, path=self.variables.get("PATH")) if known else None
        return [one for folder, one in known if path is not None and os.path.dirname(os.path.abspath(path)) == folder]

    @cached_property
    def _on_path(self) -> list[tuple[str, Python]]:
        """The folders of PATH that belong to labmake's interpreter or to a virtual environment, with that one."""
        found = []
        for folder in dict.fromkeys(map(os.path.abspath, self.variables.get("PATH", "").split(os.pathsep))):
            if folder == os.path.dirname(os.path.abspath(sys.executable)):
                found.append((folder, self.here))
            elif os.path.exists(os.path.join(os.path.dirname(folder), "pyvenv.cfg")):
                one = interpreters.named(os.path.join(folder, "python"), self.root, self.variables, self.memo)
                found += [] if one is None else [(folder, one)]
        return found

    # Other languages ---------------------------------------------------------------------------------------------

    @cached_property
    def _found_r(self) -> r_packages.R | None:
        from labmake.environment import r_packages

        self.asked.update({name: os.environ.get(name) for name in r_packages.VARIABLES})
        found = r_packages.find(self.code.root, "Rscript", self.variables, self.memo, self.digest)
        if found is not None:
            self.looked.update((*found.libraries, *found.watched))
        return found

    def _r(self, wanted: _Wanted) -> list[str]:
        """R's version, and those of the packages that are attached, unless renv.lock, which is code, has them."""
        found = self._found_r
        if found is None:
            return []
        if "renv.lock" in self.locks:
            return [f"R {found.version}"]
        from labmake.environment import r_packages

        packages = r_packages.all_packages(found) if wanted.any_package else wanted.packages
        return [f"R {found.version}", *self._r_versions(found, packages)]

    def _r_versions(self, found: r_packages.R, packages: Iterable[str]) -> list[str]:
        from labmake.environment import r_packages

        def about(path: str) -> dict[str, Any]:
            said: dict[str, Any] = self.code.said(path, r_packages.KIND, r_packages.describe)
            return said

        versions = r_packages.versions(found, packages, about)
        return [f"R:{name} {version}" for name, version in sorted(versions.items()) if version]

    def _julia(self) -> list[str]:
        """Julia's version; its packages' are in Manifest.toml, which is code."""
        from labmake.environment.tools import version_of

        version, watched = version_of("julia", self.variables, self.memo)
        self.looked.update(watched)
        return [f"julia {version}"] if version else []

    # Lock files --------------------------------------------------------------------------------------------------

    def _digests(self, files: Mapping[str, str]) -> list[str]:
        """`name digest` of each of these files (name → project path) that there is."""
        found = []
        for name, path in sorted(files.items()):
            try:
                found.append(f"{name} {self.digest(path)}")
            except OSError:
                continue
        return found

    @cached_property
    def locks(self) -> dict[str, Digest]:
        """The digests of the project's lock files."""
        return locks.digests(self.digest)

    def warnings(self) -> list[str]:
        """What is odd about the distributions that the environments of this build name: a line each."""
        if not self._named:
            return []
        versions = self.versions(sorted(self._named))
        found = []
        for lock in (name for name in locks.PYTHON if name in self.locks):
            wanted = self.code.said(lock, locks.KIND, locks.locked)
            different = mismatches(wanted, versions)
            if different:
                told = ", ".join(f"{name} {version} (locked: {other})" for name, other, version in different[:8])
                more = f" and {len(different) - 8} more" if len(different) > 8 else ""
                found.append(f"what is installed is not what {lock} has: {told}{more}")
        for name in sorted(self._named):
            found += [f"{name} {versions[name]}: {fault}".strip() for fault in self.own.faults(name)]
        return found


def _stamp(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _platform() -> str:
    return f"platform {sys.platform}-{os.uname().machine}"
