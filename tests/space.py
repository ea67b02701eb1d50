"""A space for stories: a project in a temporary folder, driven by the real command line.

space.write("script.py", …)          files of the experiment, `src/…` and `/…` from the root
space.build("data/x.csv")            the real command, in a process of its own
assert space.ran == ["data/x.csv"]   which steps ran, as the steps themselves noted it
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

EXPERIMENT = "2026-01-02-Story"

HEADER = """from labmake import each, env, find, glob, group, listdir, need, plan, py, r, read_csv, read_json, read_text
from labmake import rule, script, sh, source, step
"""


@dataclass
class Done:
    """What a command did: exit code, and all it printed."""

    code: int
    text: str

    def __contains__(self, words: str) -> bool:
        return words in self.text


@dataclass
class Space:
    """A project folder with one experiment (or none) and what was done in it."""

    root: Path
    experiment: str = EXPERIMENT
    last: Done = field(default_factory=lambda: Done(0, ""))
    started: int = 0

    def path(self, name: str) -> Path:
        """`/x` and `src/x` from the root, `./x`, `script.py` and documents in scripts/<experiment>, else generated."""
        if name.startswith("/"):
            return self.root / name[1:]
        if name.startswith("src/") or name in ("rules.py", "Makefile"):
            return self.root / name
        scripts = self.root / "scripts" / self.experiment
        if name.startswith("./"):
            return scripts / name[2:]
        if name == "script.py" or name.endswith((".md", ".bib", "hashes.txt")):
            return scripts / name
        generated = self.root / "generated" / self.experiment
        return generated / name if name.startswith("outputs/") else generated / "assets" / name

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file; a text is dedented. script.py and rules.py get labmake's names imported."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            text = textwrap.dedent(text).lstrip("\n")
            path.write_text(
                (HEADER if path.name in ("script.py", "rules.py") and "from labmake" not in text else "") + text
            )
        return path

    def read(self, name: str) -> str:
        return self.path(name).read_text()

    def exists(self, name: str) -> bool:
        return os.path.lexists(self.path(name))

    def files(self) -> dict[str, str]:
        """Every generated file of the experiment: short path → content."""
        base = self.root / "generated" / self.experiment
        found = {}
        for path in sorted(base.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(base))
                found[name.removeprefix("assets/")] = path.read_text(errors="replace")
        return found

    def run(
        self, *words: str, code: int | None = 0, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> Done:
        """Run `labmake …`; `code` is the exit code that is expected (None: any)."""
        done = subprocess.run(
            [sys.executable, "-m", "labmake.cli.entry", *words],
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            timeout=300,
            check=False,
        )
        self.last = Done(done.returncode, done.stdout + done.stderr)
        assert 'labmake/cli/main.py", line' not in self.last.text, self.last.text  # a traceback of labmake's own
        assert code is None or done.returncode == code, f"exit code {done.returncode}:\n{self.last.text}"
        return self.last

    def build(self, *targets: str, code: int | None = 0, **words: object) -> Done:
        """`labmake build …`; afterwards `ran` names the steps that ran."""
        return self.run("build", *targets, code=code, **words)  # type: ignore[arg-type]

    def start(self, *words: str, env: dict[str, str] | None = None) -> Running:
        """Start `labmake …` in a process group of its own, as a shell does, and go on."""
        self.started += 1
        log = self.root.parent / f"running-{self.root.name}-{self.started}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "labmake.cli.entry", *words],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        return Running(self, process, log)

    @property
    def notes(self) -> Path:
        """A file outside of the project to which steps of a story append a line, so that it tells what really ran."""
        return self.root.parent / "notes"

    def noted(self) -> list[str]:
        """The lines that steps have noted, in order."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def why(self, target: str) -> Done:
        """Run `labmake why TARGET`."""
        return self.run("why", target)

    @property
    def ran(self) -> list[str]:
        """The targets whose steps ran and succeeded in the last command, sorted."""
        return sorted(re.findall(r"^made      (.*?)  [\d.]+ s$", self.last.text, re.MULTILINE))

    @property
    def restored(self) -> list[str]:
        """The targets that came from the store in the last command, sorted."""
        return sorted(re.findall(r"^restored  (.*)$", self.last.text, re.MULTILINE))

    def git(self, *words: str) -> str:
        """Run git in the project, with an identity of its own."""
        who = ["-c", "user.name=Story", "-c", "user.email=story@example.org", "-c", "init.defaultBranch=main"]
        done = subprocess.run(["git", *who, *words], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout

    def json(self, name: str) -> object:
        return json.loads(self.read(name))


@dataclass
class Running:
    """A labmake that runs now."""

    space: Space
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send the coordinator alone a signal."""
        self.process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole process group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the coordinator alone."""
        self.process.kill()
        self.process.wait()

    def end(self, code: int | None = 0) -> Done:
        """Wait for its end; `code` is the exit code that is expected (None: any)."""
        self.process.wait(timeout=300)
        self.space.last = Done(self.process.returncode, self.text)
        assert code is None or self.process.returncode == code, f"exit code {self.process.returncode}:\n{self.text}"
        return self.space.last


def wait_until(happened: Callable[[], object]) -> None:
    """Return as soon as something has happened; after two minutes it never will."""
    for _ in range(12000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")
