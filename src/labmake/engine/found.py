"""What find, glob and need give to a plan: a short path that is a text, so that `./x` stays what it means."""

from __future__ import annotations

from pathlib import PurePosixPath


class Found(str):
    """A path as it is written in the experiment's script, with the parts by which a plan decides.

    A text and not a Path: a Path drops the `./` by which a file beside script.py differs from a generated one, and a
    closing slash.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The last part: `a.tar.gz` of `./in/a.tar.gz`."""
        return PurePosixPath(self).name

    @property
    def stem(self) -> str:
        """The last part without its last suffix."""
        return PurePosixPath(self).stem

    @property
    def suffix(self) -> str:
        """The last suffix with its dot, "" if there is none."""
        return PurePosixPath(self).suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes with their dots."""
        return PurePosixPath(self).suffixes
