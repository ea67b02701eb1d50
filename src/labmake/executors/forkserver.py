"""The fork server: a process of the steps' interpreter that has imported what steps need and forks each of them.

It is `pystep.py` itself, told by the variable LABMAKE_SERVE ("requests,answers": two descriptors) to wait for steps. In
a child `wait_for_step` returns, and the program goes on as if it had been started for this step alone.

Messages (executors.wire). First: {file, kind, project, scratch, imports: [[module, [names]]]}, answered by {names}, the
top-level names of all modules that were looked for, or by {unfit: reason}, after which the server ends. Then for each
step {cwd, env}, answered by the child with {pid} as soon as it leads a session, and by the server with {status, peak}.

A server is fit if a child of it is as a fresh interpreter would be after the same imports. What it imported must have
left no thread, process, open file, file, or path of the folder in which that happened; see docs/design/workers.md.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from labmake.executors.wire import CHUNK, Message, Unpacker, packed
from labmake.frozen import frozen

LARGEST = 1 << 30
"""Bytes of resident memory up to which a server is kept: the fork of a process of 2 GB takes 82 ms."""

WORDY = 1 << 16
"""Bytes that imports may print; each child prints them again, as a fresh interpreter would."""

KILL = 9

HARMLESS = ("jemalloc_bg_thd",)
"""Threads that a child can do without: jemalloc (in pyarrow, and so in pandas) gives memory back in the calling thread
where its own has not come through a fork, for which it has handlers."""

CORRECTED = ("multiprocessing.process", "ORIGINAL_DIR")
"""What remembers the working directory in which it was imported, and is told the child's."""

_HERE = os.path.abspath(__file__)


class Unfit(Exception):
    """Why a child would differ from a fresh interpreter."""


@frozen
class _There:
    """What is there before a fork: the main module, the name of the last module imported, the open descriptors."""

    main: Any
    last: str
    descriptors: set[int]


class _Missed:
    """Stands at the end of sys.meta_path, and notes the modules that were looked for and are not there."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, *_: object) -> None:
        self.names.add(name)


def wait_for_step(
    search_path: Callable[[str, str, str], list[str]], compile_ahead: Callable[[str, str], None]
) -> Callable[[int], None]:
    """Import what the first message names, then fork for each step that is asked for; returns in the children alone.

    `search_path` gives sys.path by step folder, recipe file and project; `compile_ahead` compiles a recipe's file, by
    the recipe's kind and file. What is returned ends the child's process as if its interpreter ended, or returns where
    only a real end would do.
    """
    requests, answers = (int(number) for number in os.environ.pop("LABMAKE_SERVE").split(","))
    messages = _messages(requests)
    try:
        try:
            names, said = _prepare(next(messages), search_path, compile_ahead)
        except Unfit as reason:
            _write(answers, {"unfit": str(reason)})
            os._exit(0)
        _write(answers, {"names": sorted(names)})
        there = _There(
            sys.modules["__main__"],
            next(reversed(sys.modules)),
            {one for one in _descriptors() - {requests, answers} if os.path.exists(f"/proc/self/fd/{one}")},
        )
        for step in messages:
            if _fork(step, answers):
                continue
            os.close(requests)
            os.close(answers)
            if said:
                os.write(1, said)
            os.chdir(step["cwd"])
            if CORRECTED[0] in sys.modules:
                setattr(sys.modules[CORRECTED[0]], CORRECTED[1], step["cwd"])
            os.environ.update(step["env"])
            return lambda code: _leave(code, there)
    except (
        BaseException
    ):  # the worker has gone, or a step has sent a signal here: what printed that would be a step's log
        os._exit(1)
    os._exit(0)


def _messages(requests: int) -> Iterator[Message]:
    unpacker = Unpacker()
    while piece := os.read(requests, CHUNK):
        yield from unpacker.feed(piece)


def _write(answers: int, message: Message) -> None:
    data = packed(message)
    while data:
        data = data[os.write(answers, data) :]


def _fork(step: Mapping[str, Any], answers: int) -> bool:
    """Fork; false in the child. In the server: wait for the child, end what it leaves in its group, and tell."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _write(answers, {"pid": os.getpid()})
        return False
    # The process is not yet reaped when its group is ended: its number cannot be another's by then.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        os.killpg(pid, KILL)
    except (ProcessLookupError, PermissionError):
        pass
    _, status, usage = os.wait4(pid, 0)
    _write(answers, {"status": status, "peak": usage.ru_maxrss})
    return True


def _prepare(
    told: Mapping[str, Any],
    search_path: Callable[[str, str, str], list[str]],
    compile_ahead: Callable[[str, str], None],
) -> tuple[set[str], bytes]:
    """Import, as the first step would in its folder; the names of modules looked for, and what was printed.

    Raises Unfit.
    """
    folder, path = os.getcwd(), list(sys.path)
    loaded = set(sys.modules)
    there = _left(told["scratch"])
    sys.path[:] = here = search_path(folder, told["file"], told["project"])
    missed = _Missed()
    sys.meta_path.append(missed)
    try:
        state = _import(told)
        compile_ahead(told["kind"], told["file"])
    except BaseException as error:
        raise Unfit(f"an import failed: {type(error).__name__}: {error}") from None
    sys.meta_path.remove(missed)
    added = {name: module for name, module in list(sys.modules.items()) if name not in loaded}
    if sys.path != here:
        raise Unfit("an import changed sys.path")
    if told["kind"] != "function" and sys.modules["random"].getstate() != state:
        raise Unfit("an import used random numbers")  # a function's are seeded after its module was imported
    if _left(told["scratch"]) != there:
        raise Unfit("an import left a file or an open one")
    _check_folder(folder, added)
    _check_processes()
    for entry in [entry for entry in sys.path_importer_cache if entry.startswith(folder)]:
        del sys.path_importer_cache[entry]
    sys.path[:] = path
    os.chdir("/")
    said = _said()
    gc.collect()
    gc.freeze()  # what is there now is not looked through again, so its pages stay shared
    return {name.partition(".")[0] for name in (*added, *missed.names)}, said


def _import(told: Mapping[str, Any]) -> object:
    """Import what the step will, in its order; the state that random numbers had before."""
    if told["kind"] == "function":
        import labmake.executors.pycall  # noqa: F401
    import random

    random.seed(0)
    state = random.getstate()
    for module, names in told["imports"]:
        found = __import__(module, {}, {}, list(names), 0)
        for name in names:
            getattr(found, name, None)
    return state


def _left(scratch: str) -> tuple[set[str], ...]:
    """What an import may leave: files where it ran and in the folder for temporary ones, open descriptors."""
    return set(os.listdir(".")), set(os.listdir(scratch)), set(os.listdir("/proc/self/fd"))


def _check_folder(folder: str, added: Mapping[str, Any]) -> None:
    """Raise Unfit if a module is the project's, or remembers the folder in which it was imported."""
    for name, module in added.items():
        names = _names_of(module)
        if folder in (names.get("__file__") or ""):
            raise Unfit(f"{name} is a module of the project")
        for value in [value for key, value in names.items() if (name, key) != CORRECTED]:
            if (type(value) is str or issubclass(type(value), os.PathLike)) and folder in os.fspath(value):
                raise Unfit(f"{name} remembers its folder")
    if any(folder in value for value in os.environ.values()):
        raise Unfit("a variable remembers its folder")


def _names_of(module: Any) -> dict[str, Any]:
    """What a module holds, by name; one that is loaded when it is first used is not loaded by that."""
    try:
        names: dict[str, Any] = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return names


def _check_processes() -> None:
    """Raise Unfit if there are other processes or threads, or too much memory.

    OpenBLAS starts threads when it is imported, ends them before each fork, and starts them again when it needs them;
    whether a library does that is tried. Threads of others would be missing in a child, with the locks that they hold.
    """
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        raise Unfit("an import started a thread")
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        raise Unfit("an import started a process")
    except ChildProcessError:
        pass
    if _threads():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if left := _threads():
            raise Unfit(f"an import started threads that do not end before a fork: {', '.join(left)}")
    with open("/proc/self/statm", "rb") as file:
        if int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") > LARGEST:
            raise Unfit("it is too large")


def _threads() -> list[str]:
    """The names of the threads beside this one, without those of which is known that they may be missing in a child."""
    names = []
    for number in os.listdir("/proc/self/task"):
        if int(number) != os.getpid():
            with open(f"/proc/self/task/{number}/comm") as file:
                names.append(file.read().strip())
    return [name for name in names if name not in HARMLESS]


def _said() -> bytes:
    """What the imports have printed into the log, which is then empty. Raises Unfit if that cannot be said again."""
    size = os.fstat(1).st_size
    said = os.pread(1, min(size, WORDY), 0) if size else b""
    if size > WORDY or os.fsencode(_HERE) in said:
        raise Unfit("an import printed what names this program, or too much")
    os.ftruncate(1, 0)
    return said


def _leave(code: int, there: _There) -> None:
    """End the process as the end of its interpreter would, without clearing what came with the fork.

    A real end takes 17 ms with numpy, for it touches every page; this 1 ms. The step's own modules are cleared, so that
    a file that they did not close is. Returns where something is still open for writing, or cannot be flushed.
    """
    import atexit  # not above: a step would find it imported

    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    if there.last not in sys.modules:
        return
    own = [*itertools.takewhile(lambda name: name != there.last, reversed(sys.modules))]
    if sys.modules.get("__main__") is not there.main:
        own.append("__main__")
    _clear([sys.modules.pop(name) for name in own])
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except (OSError, ValueError):
        return
    if any(map(_is_written, _descriptors() - there.descriptors)):
        return
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None:  # what C libraries printed; whoever loads one has loaded ctypes, or numpy has
        ctypes.CDLL(None).fflush(None)
    os._exit(code)


def _clear(modules: list[Any]) -> None:
    """Let go of modules and all that only they hold, in the order of CPython: the last imported first, and in each the
    private names first."""
    for module in modules:
        names = _names_of(module)
        for private in (True, False):
            for name in [name for name in names if name.startswith("_") is private and name != "__builtins__"]:
                names[name] = None
    modules.clear()
    gc.collect()


def _descriptors() -> set[int]:
    """The open descriptors, and that with which they are listed."""
    return {int(name) for name in os.listdir("/proc/self/fd")}


def _is_written(descriptor: int) -> bool:
    """Whether a descriptor of this process is open for writing."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}") as file:
            flags = next(line for line in file if line.startswith("flags:"))
    except (OSError, StopIteration):
        return False
    return bool(int(flags.split()[1], 8) & os.O_ACCMODE)
