"""Stories of an ordinary user, also where the tests are run by root, whom no mode stops."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from space import Done, Space

NOBODY = 65534


class UserSpace(Space):
    """A space whose commands are run by an ordinary user: by `nobody` if root runs the tests."""

    user: int = NOBODY if os.geteuid() == 0 else os.geteuid()

    def run(
        self, *words: str, code: int | None = 0, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> Done:
        done = subprocess.run(
            [*as_user(self.user), sys.executable, "-m", "labmake.cli.entry", *words],
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self.root.parent), **(env or {})},
            check=False,
        )
        self.last = Done(done.returncode, done.stdout + done.stderr)
        assert "Traceback" not in self.last.text, self.last.text
        assert code is None or done.returncode == code, f"exit code {done.returncode}:\n{self.last.text}"
        return self.last

    def own(self, user: int | None = None) -> None:
        """Let everything belong to the user (or another one)."""
        if os.geteuid() == 0:
            for path in (self.root.parent, *self.root.parent.rglob("*")):
                os.chown(path, user or self.user, user or self.user, follow_symlinks=False)


def as_user(user: int) -> list[str]:
    """The words before a command that have another user run it; nothing if that is who runs the tests.

    The interpreter may lie where nobody but root can read. Then that one right is left to the user: to read anything.
    What counts in these stories is what he may write.
    """
    if user == os.geteuid():
        return []
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    if _readable(sys.executable) and _readable(__file__):
        return words
    return [*words, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def _readable(path: str) -> bool:
    """Whether everybody can reach a file."""
    whole = Path(os.path.realpath(path))
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in whole.parents) and bool(whole.stat().st_mode & 4)


@contextmanager
def user_space(user: int | None = None) -> Iterator[UserSpace]:
    """A space of an ordinary user, in a folder that he can reach."""
    home = Path(tempfile.mkdtemp(prefix="labmake-user-"))
    home.chmod(0o755)
    space = UserSpace(home / "project")
    if user is not None:
        space.user = user
    try:
        (space.root / "scripts" / space.experiment).mkdir(parents=True)
        (space.root / ".git").mkdir()
        space.own()
        yield space
    finally:
        for path in home.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(home)
