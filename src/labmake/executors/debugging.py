"""The debugger of `labmake debug`: pdb at the place where a Python step failed, for a person on the terminal."""

from __future__ import annotations

import os
import pdb
import sys
from types import TracebackType

from labmake.errors import LabmakeError


def look_at(error: BaseException, root: str, ours: tuple[str, ...]) -> None:
    """Let a person look at what a step raised, from the innermost frame of the project's own code on.

    `root` is the step folder; frames of files whose names begin with one of `ours` come first and are not shown. An
    error that was raised before the step's own code was entered has no place to look at.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ours):
        trace = trace.tb_next
    if trace is None or (isinstance(error, LabmakeError) and not _own(trace, root)):
        return
    own = _own(trace, root)
    debugger = pdb.Pdb()
    debugger.reset()
    above = own[::-1].index(True) if True in own else 0
    if above:
        debugger.cmdqueue.append(f"up {above}")
    sys.stderr.write("pdb: `p NAME` shows a value, `u` and `d` go up and down, `l` shows the code, `q` leaves\n")
    debugger.interaction(None, trace)


def _own(trace: TracebackType, root: str) -> list[bool]:
    """Of each frame, outermost first, whether it is of the project's own code."""
    own: list[bool] = []
    at: TracebackType | None = trace
    while at is not None:
        path = os.path.join(root, at.tb_frame.f_code.co_filename)
        own.append(path.startswith(root + os.sep) and os.path.exists(path))
        at = at.tb_next
    return own
