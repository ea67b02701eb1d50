"""What looking at an environment of 200 distributions costs a build: `python benchmarks/installed.py` prints it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labmake.environment.installed import look, plain_digest

NUMBER = 200
NEEDED = 5
FILES = 300


class Memo(dict[str, Any]):
    """A memo that keeps texts, as the state file does."""

    def get(self, key: str, default: object = None) -> Any:
        return json.loads(self[key]) if key in self else default

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, json.dumps(value))


def install(site: Path, number: int, version: str = "1.0.0") -> None:
    """A distribution with a module, FILES lines in its RECORD, and a requirement for each of the next few."""
    name = f"package{number}"
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = [f"Requires-Dist: package{n} (>=1)" for n in range(number + 1, min(number + 1 + NEEDED, NUMBER))]
    extras = [f"Requires-Dist: pytest{n}; python_version >= '3.8' and extra == 'test'" for n in range(10)]
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Provides-Extra: test"]
    (info / "METADATA").write_text("\n".join([*head, *needs, *extras, "", "text\n" * 200]))
    record = [f"{name}/file{n}.py,sha256={'x' * 43},100" for n in range(FILES)]
    (info / "RECORD").write_text("\n".join([f"{name}/__init__.py,,", *record, ""]))
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").write_text("")


def main() -> None:
    """Print milliseconds: the shortest of repeated looks, since other work on the machine only adds."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        for number in range(NUMBER):
            install(site, number)
        memo = Memo()

        def once() -> str:
            found = look([folder], "/nowhere", memo, lambda _: True)
            names = sorted(found.with_needs(found.owners("package0.part")))
            return "".join(f"{name} {found.version(name, plain_digest)}\n" for name in names)

        def upgraded() -> str:
            old = next(site.glob("package7-*.dist-info"))
            old.rename(site / f"package7-1.0.{time.monotonic_ns()}.dist-info")
            return once()

        say("first look, everything is read", timed(once, 1))
        say("nothing has changed", timed(once, 50))
        say("one distribution has changed", timed(upgraded, 20))
        path = [folder]
        say("importlib.metadata, names and versions", timed(lambda: versions(path), 5))


def versions(path: list[str]) -> str:
    return "".join(f"{one.metadata['Name']} {one.version}" for one in importlib.metadata.distributions(path=path))


def timed(work: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1000


def say(what: str, milliseconds: float) -> None:
    sys.stdout.write(f"{what.ljust(40)} {milliseconds:8.1f} ms\n")


if __name__ == "__main__":
    main()
