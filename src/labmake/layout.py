"""Where everything lies: the project, its experiments, short paths, places in a step folder, labmake's own state."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path, PurePosixPath

from labmake.errors import Misuse, RuleError
from labmake.frozen import frozen

GENERATED = "generated"
SCRIPTS = "scripts"


@frozen
class Project:
    """A project: `root` holds rules.py and scripts/, `state` is `.git/labmake` (or `.labmake` without git)."""

    root: Path
    state: Path

    @property
    def database(self) -> Path:
        """The state file of this worktree on this host: never shared, so it may be opened without a server."""
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return self.state / "state" / f"{name}-{socket.gethostname()}.db"

    def absolute(self, path: str) -> str:
        """The file system path of a project path; an absolute one stays as it is."""
        return path if path.startswith("/") else f"{self.root}/{path.rstrip('/')}"


def find_project(start: Path) -> Project:
    """The project that `start` lies in: the nearest folder with rules.py or scripts/, else git's worktree.

    The search ends at the top of the git worktree. Raises Misuse outside of both.
    """
    start = Path(os.path.abspath(start))
    marked: Path | None = None
    for folder in (start, *start.parents):
        if marked is None and ((folder / "rules.py").is_file() or (folder / SCRIPTS).is_dir()):
            marked = folder
        common = git_common_folder(folder)
        if common is not None:
            return Project(marked or folder, common / "labmake")
    if marked is None:
        raise Misuse(
            "this is no labmake project",
            [("looked in", start), ("looked for", "rules.py, scripts/ or a git repository, here and above")],
            ["run `labmake init` in the folder that shall become one"],
        )
    return Project(marked, marked / ".labmake")


def git_common_folder(folder: Path) -> Path | None:
    """The git folder that all worktrees of the repository with worktree `folder` share, or None (no git call)."""
    dot = folder / ".git"
    if dot.is_dir():
        return dot
    try:
        text = dot.read_text()
    except OSError:
        return None
    if not text.startswith("gitdir:"):
        return None
    own = folder / text[7:].strip()
    try:
        return Path(os.path.normpath(own / (own / "commondir").read_text().strip()))
    except OSError:
        return own


def experiments(project: Project) -> list[str]:
    """The names of all experiments in this worktree: folders in scripts/ with a script.py or a document."""
    try:
        entries = sorted(entry.name for entry in os.scandir(project.root / SCRIPTS) if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in entries if _is_experiment(project.root / SCRIPTS / name)]


def _is_experiment(folder: Path) -> bool:
    return any(name == "script.py" or name.endswith(".md") for name in os.listdir(folder))


def script_folder(experiment: str) -> str:
    """The project path of the folder with an experiment's script.py; "" for the root's own rules."""
    return f"{SCRIPTS}/{experiment}" if experiment else ""


def generated_folder(experiment: str) -> str:
    """The project path of the folder with an experiment's results."""
    return f"{GENERATED}/{experiment}" if experiment else GENERATED


_OTHER = re.compile(r"(?!\.\.?:)((?:[^/:{}]|\{(?:[^{}]|\{[^{}]*\})*\})+):(?!//)(.+)", re.DOTALL)
"""`<experiment>:path`; a colon in a wildcard's braces does not count, nor one after a slash or of a web address."""


def split_experiment(path: str) -> tuple[str, str] | None:
    """The experiment and the path that `<experiment>:path` names; None for a path without an experiment."""
    found = _OTHER.fullmatch(path)
    return (found[1], found[2]) if found else None


def expand(path: str, experiment: str) -> str:
    """The project path that a path written in an experiment's script (or in rules.py, experiment "") means.

    Short paths are generated, `./x` lies beside script.py, `/x` and `generated/…` are from the project's root,
    `<experiment>:path` is a path of another experiment. Raises RuleError for a path that leaves the project.
    """
    other = split_experiment(path)
    return _expand(path, experiment) if other is None else _expand(other[1], other[0])


def _expand(path: str, experiment: str) -> str:
    if path.startswith("./"):
        base, rest = script_folder(experiment), path[2:]
    elif path.startswith("/"):
        base, rest = "", path[1:]
    elif path.startswith(f"{GENERATED}/"):
        base, rest = "", path
    elif path.startswith("outputs/"):
        base, rest = generated_folder(experiment), path
    else:
        base, rest = f"{generated_folder(experiment)}/assets", path
    return clean(f"{base}/{rest}" if base else rest, path)


def clean(path: str, written: str | None = None) -> str:
    """`path` without `.`, `..` and doubled slashes; a closing slash stays. Raises RuleError if it leaves the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise RuleError(
                    f"the path {written or path} leaves the project",
                    [("path", written or path)],
                    ["bring data from elsewhere in with source(…)"],
                )
            parts.pop()
        elif part and part != ".":
            parts.append(part)
    if not parts and path in ("", "./") and (written or "").strip("./") == "" and written:
        return "./"
    if not parts or "\0" in path:
        raise RuleError(f"not a path of a file: {written or path!r}", [("path", repr(written or path))])
    return "/".join(parts) + ("/" if path.endswith("/") else "")


def experiment_of(path: str) -> str | None:
    """The experiment whose folder a project path lies in; "" for the root's generated files, None for shared files."""
    parts = path.split("/", 2)
    if len(parts) < 2 or parts[0] not in (GENERATED, SCRIPTS):
        return None
    if parts[0] == GENERATED and parts[1] in ("assets", "outputs"):
        return ""
    return parts[1] if len(parts) == 3 else None


def short(path: str, experiment: str) -> str:
    """The shortest way to write a project path in an experiment's script; the inverse of expand."""
    generated = generated_folder(experiment)
    if path.startswith(f"{generated}/assets/"):
        return path[len(generated) + 8 :]
    if path.startswith(f"{generated}/outputs/"):
        return path[len(generated) + 1 :]
    scripts = script_folder(experiment)
    if scripts and path.startswith(f"{scripts}/"):
        return f"./{path[len(scripts) + 1 :]}"
    return path if path.startswith(f"{GENERATED}/") else f"/{path}"


class Places:
    """Places of project files in the step folder of one experiment, in which no experiment's name occurs.

    Raises RuleError when two files would lie at one place.
    """

    def __init__(self, experiment: str) -> None:
        self.experiment = experiment
        self._others: dict[str, int] = {}
        self._taken: dict[str, str] = {}

    def place(self, path: str) -> str:
        """The place of a project path; the results of other experiments lie at `of/<n>/`."""
        owner = experiment_of(path)
        if owner is None or (owner == "" and self.experiment):
            place = path
        elif owner == self.experiment:
            place = short(path, owner).removeprefix("./")
        else:
            number = self._others.setdefault(owner, len(self._others) + 1)
            place = f"of/{number}/{short(path, owner).removeprefix('./')}"
        first = self._taken.setdefault(place, path)
        if first != path:
            raise RuleError(
                "two files of a step would lie at one place",
                [("place", place), ("file", first), ("file", path)],
                ["rename one of them: a step sees the experiment's own files and its data in one folder"],
            )
        return place


def parent(path: str) -> str:
    """The project path of the folder that holds `path`, with a closing slash; "" for the root."""
    folder = str(PurePosixPath(path).parent)
    return "" if folder == "." else folder + "/"
