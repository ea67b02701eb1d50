"""A project's history as git has it: commits, what each changed, and the files of any of them.

Git is asked by its command. A commit's files are exported into a folder of labmake's state, with an index of their own,
by `git read-tree -u`: it writes only what differs from the commit before, with the user's filters and line ends, and
touches neither the worktree nor its index. Rejected: a linked worktree, which git and editors list as one of the
user's; `git archive`, which writes everything for each commit; reading blobs ourselves, without the filters.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labmake.errors import Misuse
from labmake.frozen import frozen
from labmake.layout import GENERATED
from labmake.store.gc import is_alive

__all__ = ["Changes", "Commit", "Exported", "History", "open_history"]

_FIELDS = "%H%x00%P%x00%an%x00%ae%x00%cI%x00%s%x00"
_PLAIN = ("core.sparseCheckout=false", "core.fsmonitor=false", "core.untrackedCache=false", "core.bare=false")

_OF_HOOKS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""Variables by which git tells a hook of its repository, which need not be the one of the project."""


@frozen
class Commit:
    """A commit; `when` is its committer's date in ISO 8601, `parents` are hashes."""

    name: str
    parents: tuple[str, ...]
    author: str
    email: str
    when: str
    subject: str


Changes = Sequence[tuple[str, str]]
"""(status, project path) of each file in which two states differ: A added, D deleted, anything else changed."""


@dataclass
class History:
    """The repository of a project: `root` is the project's, `prefix` its path in the worktree, with a closing `/`."""

    root: Path
    folder: str
    prefix: str
    shallow: bool
    head: str
    _changes: dict[tuple[str, str], Changes] = field(default_factory=dict)

    def log(self, most: int, since: str = "") -> list[Commit]:
        """The last `most` commits of HEAD, each before its parents; those that `since` (a revision) has are left out.

        Raises Misuse if there is none, or no such revision.
        """
        words = ["log", "-z", "--topo-order", "--encoding=UTF-8", f"--format={_FIELDS}", f"-n{most}", "HEAD"]
        if since:
            self._check(since)
            words.append(f"^{since}")
        return _commits(self._git(*words, "--"))

    def commit(self, name: str) -> Commit:
        """One commit by its hash."""
        return _commits(self._git("log", "-z", "--encoding=UTF-8", f"--format={_FIELDS}", "-n1", name, "--"))[0]

    def _check(self, revision: str) -> None:
        try:
            self._git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        except Misuse:
            raise Misuse(
                f"git knows no commit {revision}",
                [("option", "--since")],
                ["give a hash, branch or tag that `git log` takes"],
            ) from None

    def is_known(self, newer: str, parents: Iterable[str]) -> bool:
        """Whether it was looked up already what a commit changed."""
        return all((newer, older) in self._changes for older in parents)

    def between(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Look up at once what the commits of each pair (newer, older) differ in."""
        wanted = [pair for pair in pairs if pair not in self._changes]
        if not wanted:
            return
        asked = "".join(f"{newer} {older}\n" for newer, older in wanted)
        words = ("diff-tree", "--stdin", "--always", "-r", "-z", "--no-renames", "--name-status")
        answered = iter(self._git(*words, told=asked).decode("utf-8", "surrogateescape").split("\0"))
        found: list[list[tuple[str, str]]] = []
        for word in answered:
            if len(word) > 2:  # a commit's name begins what is said of its pair
                found.append([])
            elif word:
                path = next(answered)
                if path.startswith(self.prefix):
                    found[-1].append((word, path[len(self.prefix) :]))
        self._changes.update(zip(wanted, found, strict=True))

    def changes(self, newer: str, older: str) -> Changes:
        """What two commits differ in, seen from the older."""
        self.between([(newer, older)])
        return self._changes[newer, older]

    def uncommitted(self) -> Changes:
        """What the worktree differs in from HEAD, files included that git does not know and does not ignore."""
        words = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules")
        lines = self._git(*words).decode("utf-8", "surrogateescape").split("\0")
        found = [(_status(line[:2]), line[3:]) for line in lines if line]
        return [(status, path[len(self.prefix) :]) for status, path in found if path.startswith(self.prefix)]

    def ignored(self) -> list[str]:
        """Project paths of the worktree's files and folders that git ignores, without hidden and generated ones."""
        words = ("ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
        paths = self._git(*words).decode("utf-8", "surrogateescape").split("\0")
        return [path.rstrip("/") for path in paths if path and not _is_passed_over(self.root, path)]

    def content(self, commit: str, path: str) -> bytes | None:
        """A file as a commit has it (as the worktree has it if `commit` is ""), None if it is not there."""
        if not commit:
            try:
                return Path(self.root, path).read_bytes()
            except OSError:
                return None
        try:
            return self._git("cat-file", "blob", f"{commit}:{self.prefix}{path}")
        except Misuse:
            return None

    def has_folder(self, commit: str, path: str) -> bool:
        """Whether a commit has files in a folder."""
        return bool(self._git("ls-tree", "-z", "--full-tree", f"{commit}", f"{self.prefix}{path}").strip(b"\0"))

    def renamed(self, newer: str, older: str, path: str) -> str | None:
        """The path from which the file at `path` came between two commits ("" for the worktree's), if it was moved."""
        words = ["diff", "--raw", "-z", "-M", "--diff-filter=R", "--no-ext-diff", older, *([newer] if newer else [])]
        fields = self._git(*words, "--").decode("utf-8", "surrogateescape").split("\0")
        for at in range(0, len(fields) - 2, 3):
            if fields[at + 2] == self.prefix + path and fields[at + 1].startswith(self.prefix):
                return fields[at + 1][len(self.prefix) :]
        return None

    def export(self, commit: str, to: Exported) -> None:
        """Bring the folder of exported files to the state of a commit."""
        for link in to.links:
            link.unlink(missing_ok=True)
        to.links.clear()
        settings = [word for setting in _PLAIN for word in ("-c", setting)]
        self._git(
            *settings,
            f"--git-dir={self.folder}",
            f"--work-tree={to.tree}",
            "read-tree",
            "--reset",
            "-u",
            commit,
            env={"GIT_INDEX_FILE": str(to.folder / "index")},
        )
        root = to.tree / self.prefix
        root.mkdir(parents=True, exist_ok=True)
        for path in to.ignored:
            place = root / path
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(self.root / path)
                to.links.append(place)

    def _git(self, *words: str, told: str = "", env: dict[str, str] | None = None) -> bytes:
        return git(self.root, *words, told=told, env=env)


def _commits(told: bytes) -> list[Commit]:
    fields = told.decode("utf-8", "replace").split("\0")
    found = []
    for at in range(0, len(fields) - 6, 7):  # each record ends with an empty field
        name, parents, *rest = fields[at : at + 6]
        found.append(Commit(name.strip(), tuple(parents.split()), *rest))
    return found


def _status(two: str) -> str:
    """One status of the two letters with which git says how index and worktree differ from HEAD."""
    return "D" if "D" in two else "A" if set(two) & set("A?") else "M"


def _is_passed_over(root: Path, path: str) -> bool:
    parts = path.rstrip("/").split("/")
    hidden = any(part.startswith(".") or part in ("__pycache__", "node_modules") for part in parts)
    return hidden or parts[0] == GENERATED or path.endswith(".pyc") or Path(root, path, "pyvenv.cfg").exists()


def git(root: Path, *words: str, told: str = "", env: dict[str, str] | None = None) -> bytes:
    """What `git …` says in a folder. Raises Misuse if it fails."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_HOOKS}
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=root,
            input=told.encode("utf-8", "surrogateescape"),
            capture_output=True,
            env={**inherited, **quiet, **(env or {})},
            check=False,
        )
    except OSError as error:
        raise Misuse("git cannot be started", [("reason", error.strerror)], ["install git"]) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        command = next(word for word in words if not word.startswith("-") and "=" not in word)
        raise Misuse(f"git {command} failed", [("folder", root), ("git says", said)], ["see what git says"])
    return done.stdout


def open_history(root: Path) -> History:
    """The history of the project at `root`. Raises Misuse without git, a repository or a commit."""
    try:
        said = git(root, "rev-parse", "--absolute-git-dir", "--is-shallow-repository", "--show-prefix")
    except Misuse as error:
        if "git says" not in dict(error.facts) or "not a git repository" not in str(dict(error.facts)["git says"]):
            raise
        advice = "results can be traced to commits where rules and code are in git: `git init`, commit, build"
        raise Misuse("the project is in no git repository", [("folder", root)], [advice]) from None
    folder, shallow, prefix = [*os.fsdecode(said).split("\n"), "", ""][:3]
    try:
        head = git(root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}").decode().strip()
    except Misuse:
        raise Misuse("the repository has no commit yet", [("folder", root)], ["commit what there is"]) from None
    return History(Path(os.path.realpath(root)), folder, prefix, shallow == "true", head)


# Exported files ----------------------------------------------------------------------------------------------------


@dataclass
class Exported:
    """A folder into which commits are exported, one after another: `tree` has the files, `links` lead to files of the
    worktree that git ignores (data, mostly), which are as they are now in every commit."""

    folder: Path
    ignored: Sequence[str]
    links: list[Path] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        return self.folder / "tree"


def exported(state: Path, ignored: Sequence[str]) -> Exported:
    """A folder for exported files; the caller removes it. Those of processes that were killed are removed now."""
    import shutil
    import socket

    above = Path(os.path.realpath(state)) / "blame"
    host = socket.gethostname()
    for left in _leftovers(above, host):
        shutil.rmtree(left, ignore_errors=True)
    folder = above / f"{host}-{os.getpid()}"
    (folder / "tree").mkdir(parents=True)
    return Exported(folder, ignored)


def _leftovers(above: Path, host: str) -> Iterator[Path]:
    if not above.is_dir():
        return
    for path in above.iterdir():
        number = path.name.removeprefix(f"{host}-")
        mine = path.name.startswith(f"{host}-") and number.isdigit()
        if mine and (int(number) == os.getpid() or not is_alive(int(number))):
            yield path
