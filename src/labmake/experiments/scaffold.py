"""The folders and files of a new project: what is missing is added, nothing is overwritten.

First everything is checked, then changed. What stands in the way of a folder or file is an error, and then nothing was
changed. The sample experiment and the modules in src/ that it uses come together or not at all: a project with
experiments needs no sample, and with a module of its own under one of these names the sample could not run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from labmake.errors import LabmakeError, Misuse, printable
from labmake.frozen import frozen
from labmake.layout import GENERATED, SCRIPTS, Project, experiments, git_common_folder

TEMPLATES = Path(__file__).parent / "templates"
FILES = (".gitignore", ".envrc", "Makefile", "pyproject.toml", "readme.md", "rules.py", "src/check-hash.sh")
MODULES = ("src/data_access.py", "src/data_engineering.py", "src/model.py", "src/visualization.py")
SAMPLE = ("script.py", "report.md")
FOLDERS = ("src", SCRIPTS, GENERATED)
SAMPLE_NEEDS = ("matplotlib", "pandas")
"""What the sample experiment imports; labmake itself does not depend on it."""

TWINS = {"Makefile": re.compile("GNUmakefile|makefile"), "readme.md": re.compile(r"(?i)readme(\.\w+)?")}
"""Names under which a project may have the file already: make reads these before Makefile, and one readme is enough."""


@frozen
class Did:
    """What happened to one file or folder: `how` is made, added to, kept or left out."""

    how: str
    path: str
    note: str = ""


def scaffold(folder: Path, today: date) -> list[Did]:
    """Make `folder` a project; `today` dates the sample experiment. Returns what was done, file by file.

    Raises Misuse if something stands in the way, LabmakeError if git fails, OSError if the disk does.
    """
    _check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [*_repository(folder), *(_add(folder, name) for name in FILES), *_sample(folder, today)]


def missing_packages() -> list[str]:
    """The packages of the sample experiment that cannot be imported here."""
    return [name for name in SAMPLE_NEEDS if importlib.util.find_spec(name) is None]


# What stands in the way --------------------------------------------------------------------------------------------


def _check(folder: Path) -> None:
    for above in (folder, *folder.parents):
        if os.path.lexists(above):
            if not above.is_dir():
                raise Misuse("a project needs a folder, and this is none", [("path", above)], ["name another folder"])
            break
    around = _project_around(folder)
    if around is not None:
        raise Misuse(
            "this folder belongs to a project already",
            [("folder", folder), ("project", around)],
            [f"run `labmake init` in {around}", "or name a folder outside of its src/, scripts/ and generated/"],
        )
    blocked = [name for name in FOLDERS if os.path.lexists(folder / name) and not (folder / name).is_dir()]
    blocked += [name for name in (*FILES, *MODULES) if os.path.lexists(folder / name) and not (folder / name).is_file()]
    if blocked:
        facts = [("folder", folder), *(("in the way", _stands(folder, name)) for name in blocked)]
        raise Misuse("something stands in the way of the project; nothing was changed", facts, ["move or rename it"])


def _stands(folder: Path, name: str) -> str:
    path = folder / name
    is_now = "a folder" if path.is_dir() else "a file" if path.is_file() else "a broken link or a device"
    return f"{name} is {is_now}, and has to be {'a folder' if name in FOLDERS else 'a file'}"


def _project_around(folder: Path) -> Path | None:
    """The project in whose src/, scripts/ or generated/ a folder lies: there it is surely meant for another place."""
    for below, above in zip((folder, *folder.parents), folder.parents, strict=False):
        if git_common_folder(below) is not None:
            return None
        marked = (above / "rules.py").is_file() or (below.name == SCRIPTS and bool(_experiments(above)))
        if below.name in FOLDERS and marked:
            return above
    return None


def _experiments(folder: Path) -> list[str]:
    return experiments(Project(folder, folder))


# What is done ------------------------------------------------------------------------------------------------------


def _repository(folder: Path) -> Iterator[Did]:
    if any(git_common_folder(above) is not None for above in (folder, *folder.parents)):
        return
    # Set where init is called from a hook or `git rebase --exec`, they would name another repository.
    env = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    command = ["git", "init", "--quiet"]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        yield Did("left out", ".git/", "git is not installed; all but publishing works without")
        return
    if done.returncode:
        raise LabmakeError(
            "git could not make a repository",
            [("folder", folder), ("exit code", done.returncode), ("git says", done.stderr.strip())],
            ["correct that, then run `labmake init` again"],
        )
    yield Did("made", ".git/", "a git repository, without a commit")


def _add(folder: Path, name: str) -> Did:
    twin = _twin(folder, name)
    if twin is not None:
        return Did("kept", twin, _advice(folder / twin, name))
    if not os.path.lexists(folder / name):
        _write(folder / name, template(name, folder))
        return Did("made", name)
    if name == ".gitignore":
        return _ignore(folder / name)
    return Did("kept", name, _advice(folder / name, name))


def _twin(folder: Path, name: str) -> str | None:
    """The file that serves for `name` under another name; on a file system without letter case it may be the same."""
    if name not in TWINS:
        return None
    return next((other for other in sorted(os.listdir(folder)) if TWINS[name].fullmatch(other)), None)


def _advice(path: Path, name: str) -> str:
    """What a kept file lacks for the project to work in full; "" if nothing."""
    if name not in ("Makefile", "pyproject.toml") or not path.exists() or b"labmake" in path.read_bytes():
        return ""
    if name == "Makefile":
        return "make asks labmake once it has the rules  `generated/%: FORCE ; @labmake build '$@'`  and  `FORCE:`"
    return "add labmake to its dependencies"


def _ignore(path: Path) -> Did:
    """Add the lines that an existing .gitignore lacks; `/generated` and `generated` say the same as `generated/`."""
    old = path.read_bytes()
    has = {line.strip().strip(b"/") for line in old.splitlines()}
    lacks = [line for line in template(".gitignore", path.parent).split() if line.strip("/").encode() not in has]
    if not lacks:
        return Did("kept", path.name)
    newline = b"\r\n" if b"\r\n" in old else b"\n"
    with path.open("ab") as file:
        file.write(newline if old and not old.endswith(b"\n") else b"")
        file.write(b"".join(line.encode() + newline for line in lacks))
    return Did("added to", path.name, ", ".join(lacks))


def _sample(folder: Path, today: date) -> Iterator[Did]:
    there = _experiments(folder)
    if there:
        yield Did("kept", f"{SCRIPTS}/", "1 experiment" if len(there) == 1 else f"{len(there)} experiments")
        return
    texts = {name: template(name, folder) for name in MODULES}
    own = [name for name, text in texts.items() if os.path.lexists(folder / name) and not _holds(folder / name, text)]
    if own:
        yield from (Did("kept", name) for name in own)
        yield Did("left out", f"{SCRIPTS}/", f"the sample experiment, which comes with its own {own[0]}")
        (folder / SCRIPTS).mkdir(exist_ok=True)
        return
    name = f"{SCRIPTS}/{today.isoformat()}-First-Steps"
    texts |= {f"{name}/{file}": template(f"sample/{file}", folder, today) for file in SAMPLE}
    for path, text in texts.items():
        if os.path.lexists(folder / path):
            yield Did("kept", path)
        else:
            _write(folder / path, text)
            yield Did("made", path)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    if text.startswith("#!"):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o444) >> 2)


# The texts ---------------------------------------------------------------------------------------------------------


def template(name: str, folder: Path, today: date | None = None) -> str:
    """The text of a project's file, with the folder's name and the date filled in."""
    title = " ".join(printable(folder.name).split()) or "Lab"
    fields: Sequence[tuple[str, str]] = (
        ("@NAME@", _distribution(folder.name)),
        ("@TODAY@", today.isoformat() if today else ""),
        ("@TITLE@", title),
    )
    text = (TEMPLATES / f"{name.removeprefix('.')}.tmpl").read_text(encoding="utf-8")
    for field, value in fields:
        text = text.replace(field, value)
    return text


def _distribution(name: str) -> str:
    """`name` as a distribution may be called: ASCII letters, digits, and single - . _ between them."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "lab"
