"""What one installed distribution says of itself: version, modules, commands, and what else it needs (PEP 376, 610).

Read from the files of its `*.dist-info` or `*.egg-info`. Whatever is missing or broken there is a fault that is told,
never an exception: somebody else's package must not stop a build.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

from labmake.frozen import frozen
from labmake.model import digest_of

KIND = "distribution 1"
"""Names this reading in a memo; the number is raised with the code."""

SUFFIXES = (*EXTENSION_SUFFIXES, ".py")

_NAMESPACE = rb"\b(?:extend_path|declare_namespace)\b"
_MAPPING = r"(?ms)^MAPPING\b[^=]*=\s*(\{.*?\})\s*$"
_EXTRA = r"""\bextra\s*==\s*["']([^"']+)["']"""
_VERSION = r"-py\d+(\.\d+)*(-.*)?$"

Needs = dict[str, list[tuple[str, Sequence[str]]]]
"""An extra ("" for none) → (name, its extras) of each distribution that is needed with it, by this interpreter."""


@frozen
class Distribution:
    """An installed distribution. `modules` are the packages and modules that it brings, of a namespace package the
    parts (`google.protobuf`); `scripts` its commands; `source` the folder of a development install, else "" (then
    `version` does not tell its content); `fault` what of its metadata could not be read. Of one that no index gave,
    `version` has a hash in brackets."""

    name: str
    version: str
    modules: Sequence[str] = ()
    needs: Needs = field(default_factory=dict)
    scripts: Sequence[str] = ()
    source: str = ""
    places: Sequence[tuple[str, str]] = ()
    """(module, file or folder) of modules that a development install maps by a finder."""
    fault: str = ""


def normal(name: str) -> str:
    """A distribution's name as all its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(folder: str, entry: str) -> Distribution:
    """The distribution whose metadata lie at `entry` (`….dist-info`, a folder, or `….egg-info`, also a file)."""
    path = os.path.join(folder, entry)
    name, _, version = entry.rpartition(".")[0].partition("-")
    text = _text(os.path.join(path, "METADATA")) or _text(os.path.join(path, "PKG-INFO")) or _text(path)
    fault = "" if text else "it has no metadata"
    from email.parser import HeaderParser

    headers = HeaderParser().parsestr(text.partition("\n\n")[0])
    version = str(headers["Version"] or re.sub(_VERSION, "", version)).strip()
    required = [str(value) for value in headers.get_all("Requires-Dist") or ()] or list(_egg_requires(path))
    needs, unread = _needs(required, [str(extra) for extra in headers.get_all("Provides-Extra") or ()])
    if unread:
        fault = f"its metadata name a requirement that is none: {unread!r}"
    if text and not headers["Version"]:
        fault = "its metadata tell no version"
    direct = _json(os.path.join(path, "direct_url.json"))
    record = _record(path)
    source = _source(folder, path, direct, record)
    modules, scripts = _brought(folder, record) if record else ((), ())
    if source or not modules:  # of a development install only its hooks are written down
        modules = tuple(_text(os.path.join(path, "top_level.txt")).split())
    if not modules and not record:
        modules = (name,)
    scripts = tuple(sorted({*scripts, *_entry_points(path)}))
    places = tuple(_mapped(folder, record)) if source else ()
    content = _content(direct, record, entry) if not source else ""
    version += f" ({content})" if content else ""
    return Distribution(normal(name), version, modules, needs, scripts, source, places, fault)


def as_json(one: Distribution) -> list[Any]:
    """A distribution as a memo keeps it; Distribution(*value) gives it back, with lists for tuples."""
    return [one.name, one.version, one.modules, one.needs, one.scripts, one.source, one.places, one.fault]


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _json(path: str) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# What it needs -----------------------------------------------------------------------------------------------------


def _needs(required: Iterable[str], extras: Iterable[str]) -> tuple[Needs, str]:
    """The requirements whose markers hold for this interpreter, by extra; and the first that cannot be read.

    Of one that cannot be read the name still counts: too much is asked for rather than too little.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    found: Needs = {"": []}
    unread = ""
    wanted = ["", *(normal(extra) for extra in extras)]
    for text in required:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            unread = unread or text
            name = re.match(r"[A-Za-z0-9][\w.-]*", text)
            if name is not None:
                found[""].append((normal(name[0]), []))
            continue
        entry = (normal(one.name), sorted(map(normal, one.extras)))
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            found[""].append(entry)
            continue
        # A marker is evaluated in 80 µs, and scipy's and its like have 2 000 pairs of requirement and extra.
        named = {normal(extra) for extra in re.findall(_EXTRA, text)} or wanted[1:]
        for extra in wanted[1:] if "extra" in text else ():
            if extra in named and one.marker.evaluate({"extra": extra}):
                found.setdefault(extra, []).append(entry)
    return found, unread


def _egg_requires(path: str) -> Iterator[str]:
    """The requirements in `requires.txt` of an egg-info, as Requires-Dist would write them."""
    marker = ""
    for line in _text(os.path.join(path, "requires.txt")).splitlines():
        if line.startswith("[") and line.rstrip().endswith("]"):
            extra, _, condition = line.strip()[1:-1].partition(":")
            parts = [f"({condition})"] * bool(condition) + [f'extra == "{extra}"'] * bool(extra)
            marker = f"; {' and '.join(parts)}" if parts else ""
        elif line.strip():
            yield line.strip() + marker


# What it brings ----------------------------------------------------------------------------------------------------


def _record(path: str) -> list[tuple[str, str]]:
    """(file relative to site-packages, hash) of what was installed; none if nobody wrote it down."""
    import csv

    text = _text(os.path.join(path, "RECORD"))
    if text:
        rows = csv.reader(text.splitlines()) if '"' in text else (line.split(",") for line in text.splitlines())
        return [(row[0], row[1] if len(row) > 1 else "") for row in rows if row and row[0]]
    base = os.path.dirname(path)
    listed = _text(os.path.join(path, "installed-files.txt")).split("\n")
    return [(os.path.relpath(os.path.join(path, line), base), "") for line in listed if line.strip()]


def _brought(folder: str, record: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules and commands among the files of a distribution; of a package its name, of a namespace its parts."""
    packages = {file.rpartition("/")[0] for file, _ in record if "/__init__." in file}
    regular = {package for package in packages if not _is_namespace(folder, package)}
    modules: dict[str, None] = {}
    scripts: dict[str, None] = {}
    for file, _ in record:
        if file.startswith(("../", "/")):
            if os.path.basename(os.path.dirname(file)) in ("bin", "Scripts"):
                scripts[os.path.basename(file).removesuffix(".exe")] = None
        elif file.endswith(SUFFIXES):
            top = file.partition("/")[0]
            if top in regular:  # most files of most distributions
                modules[top] = None
            else:
                modules[_module(file, regular)] = None
    return tuple(name for name in modules if all(map(str.isidentifier, name.split(".")))), tuple(scripts)


def _module(file: str, regular: set[str]) -> str:
    """The outermost regular package that a file lies in, else the module itself."""
    end = file.find("/")
    while end > 0:
        if file[:end] in regular:
            return file[:end].replace("/", ".")
        end = file.find("/", end + 1)
    suffix = next(suffix for suffix in SUFFIXES if file.endswith(suffix))
    return file.removesuffix(suffix).removesuffix("/__init__").replace("/", ".")


def _is_namespace(folder: str, package: str) -> bool:
    """Whether the `__init__.py` of a top-level package only shares it with other distributions, as was done before
    PEP 420."""
    if "/" in package:
        return False
    try:
        with open(os.path.join(folder, package, "__init__.py"), "rb") as file:
            start = file.read(2048)
    except OSError:
        return False
    return len(start) < 2048 and bool(re.search(_NAMESPACE, start))


def _entry_points(path: str) -> Iterator[str]:
    section = ""
    for line in _text(os.path.join(path, "entry_points.txt")).splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section in ("[console_scripts]", "[gui_scripts]") and "=" in line:
            yield line.partition("=")[0].strip()


# Where its version does not tell what it is ------------------------------------------------------------------------


def _source(folder: str, path: str, direct: dict[str, Any], record: list[tuple[str, str]]) -> str:
    """The folder whose files a development install imports; "" for a copy of its own."""
    about = direct.get("dir_info")
    if isinstance(about, dict) and about.get("editable"):
        from urllib.parse import unquote, urlsplit

        return os.path.realpath(unquote(urlsplit(str(direct.get("url", ""))).path) or folder)
    develop = path.endswith(".egg-info") and os.path.isdir(path) and not record
    return folder if develop and os.path.basename(folder) not in ("site-packages", "dist-packages") else ""


def _mapped(folder: str, record: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What setuptools' finder of a development install maps: modules and where they lie."""
    import ast

    for file, _ in record:
        if file.startswith("__editable__") and file.endswith("_finder.py"):
            found = re.search(_MAPPING, _text(os.path.join(folder, file)))
            try:
                mapping = ast.literal_eval(found[1]) if found else {}
            except (ValueError, SyntaxError):
                continue
            yield from ((str(module), str(place)) for module, place in mapping.items())


def _content(direct: dict[str, Any], record: list[tuple[str, str]], entry: str) -> str:
    """What tells two distributions of one version apart if no index gave them: the commit, or a hash of the files.

    `pip install ../tools` leaves a copy that keeps its version through every change. Commands do not count: their
    first line is a path of this machine.
    """
    if not direct:
        return ""
    about = direct.get("vcs_info")
    if isinstance(about, dict) and about.get("commit_id"):
        return str(about["commit_id"])[:12]
    files = sorted(f"{file} {told}" for file, told in record if told and not file.startswith(("../", f"{entry}/")))
    return digest_of("\n".join(files).encode())[:12] if files else ""
