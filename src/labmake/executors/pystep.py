"""The program that runs a Python step: `python …/pystep.py` in the step folder, told what to do by a JSON file.

The environment variable LABMAKE_STEP names the file, which lies outside of the step folder:

    project     absolute path of the project, from which nothing is imported
    recipe      {"kind": "function" | "python", "file": place in the step folder, "function": its dotted name}
    inputs      name → path, list of paths, dict of paths (null: this one failed), list of records with a "path"
    each        name of an input → its wildcards, in the order of a record's key
    parameters  name → JSON value
    wildcards   name → text
    outputs     name → path, a folder with a closing `/`; one is called "out", several without names "out1", "out2", …
    scratch     absolute path of a folder for temporary files
    loaded      absolute path of a file to write the imported modules to, one a line, if the step went well

With the variable LABMAKE_ITEMS it runs the items of a batch, one after another (see executors.items): that one names a
folder with two pipes, and what LABMAKE_STEP names is written anew for each.

Exit code 0 if the step went well. Nothing of labmake is imported before the paths are right, so that a step sees the
modules of its own project, never those that lie beside this file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import traceback
    from types import ModuleType

_HERE = os.path.dirname(os.path.abspath(__file__))
_OURS = ("<frozen ", os.path.join(_HERE, "pystep.py"), os.path.join(_HERE, "pycall.py"))
"""How the names of files begin whose frames a person is not shown."""


DEBUG = "debug"
"""The argument with which a person is given a debugger where the step fails."""


def main() -> int:
    """Run the step that LABMAKE_STEP names, in the working directory; its exit code.

    As a fork server (LABMAKE_SERVE) it goes on here in each child, and ends there in a quicker way where that is the
    same.
    """
    before = frozenset(sys.modules)  # a fork server imports for its steps
    leave = _forked() if "LABMAKE_SERVE" in os.environ else None
    items = os.environ.pop("LABMAKE_ITEMS", "")
    code = _run_items(items, before) if items else _run_told(before)
    if leave is not None:
        leave(code)
    return code


def _run_told(before: Container[str]) -> int:
    """Run the step that LABMAKE_STEP names now; modules in `before` were imported by nobody's step."""
    with open(os.environ["LABMAKE_STEP"], encoding="utf-8") as file:
        step = json.load(file)
    root = os.getcwd()
    code = run(step, debug=sys.argv[1:] == [DEBUG])
    if code == 0 and "loaded" in step:
        with open(step["loaded"], "w", encoding="utf-8") as file:
            file.write("\n".join(loaded_modules(before, root)))
    return code


def _run_items(folder: str, before: Container[str]) -> int:
    """Run items until no more is asked for, or the recipe's module could not be imported; the exit code is 0."""
    import resource

    asked = os.open(os.path.join(folder, "items.in"), os.O_RDONLY)
    said = os.open(os.path.join(folder, "items.out"), os.O_WRONLY)
    more = True
    while more and (line := _line(asked)):
        item = json.loads(line)
        os.chdir(item["folder"])
        _begin_item(item["env"])
        code = _run_told(before)  # what an earlier item imported, a later one may use
        _flush()
        more = bool(_MODULES)
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        os.write(said, f"{code & 255} {peak} {int(more)}\n".encode())
    os.close(asked)
    os.close(said)
    return 0


def _line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(descriptor, 4096)):
        line += piece
    return line


def _begin_item(env: Mapping[str, str]) -> None:
    """What an item finds as the first one found it: variables, and no figure that pyplot would go on drawing."""
    if _MODULES:
        wanted = {**_VARIABLES, **env}
        if dict(os.environ) != wanted:
            os.environ.clear()
            os.environ.update(wanted)
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


def _flush() -> None:
    """Write out what was printed, so that it is in the log of its item."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except (OSError, ValueError):
        pass
    ctypes: Any = sys.modules.get("ctypes")
    if ctypes is not None:
        ctypes.CDLL(None).fflush(None)


_MODULES: dict[str, ModuleType] = {}
"""The recipe files that were imported, which the next item of a batch uses again."""

_VARIABLES: dict[str, str] = {}
"""The environment variables as they were after that import."""


def _forked() -> Callable[[int], None]:
    _make_labmake_importable()
    import labmake.errors  # noqa: F401 - the first that a step imports
    from labmake.executors.forkserver import wait_for_step

    return wait_for_step(_search_path, _compile_ahead)


def loaded_modules(before: Container[str], root: str) -> list[str]:
    """The modules that were imported since `before`, but for the standard library's, labmake's and those in `root`:
    of a package its name alone, of a namespace package the names of its parts."""
    found: dict[str, None] = {}
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top in found or name in before or top in sys.stdlib_module_names or top in ("labmake", "__main__"):
            continue
        part, rest = top, name[len(top) :]
        while part not in found:
            module = sys.modules.get(part)
            file = getattr(module, "__file__", None)
            if file is not None or not hasattr(module, "__path__"):
                if not (file and os.path.join(root, file).startswith(root + os.sep)):
                    found[part] = None
                break
            if not rest:
                break
            more = rest[1:].partition(".")[0]
            part, rest = f"{part}.{more}", rest[len(more) + 1 :]
    return list(found)


def run(step: Mapping[str, Any], debug: bool = False) -> int:
    """Run `step` in the working directory; its exit code. What went wrong stands on standard error.

    With `debug` a person on the terminal then looks at it in a debugger.
    """
    root = os.getcwd()
    os.environ.setdefault("MPLBACKEND", "Agg")
    _make_labmake_importable()
    from labmake.errors import LabmakeError, format_error

    if debug:  # before the project's own modules can be taken for those of the standard library that it imports
        from labmake.executors.debugging import look_at
    sys.path[:] = _search_path(root, step["recipe"]["file"], step.get("project", ""))
    try:
        if step["recipe"]["kind"] == "function":
            _run_function(step, root)
        else:
            _run_script(step, root)
    except BaseException as error:
        os.chdir(root)
        if debug and type(error).__name__ == "BdbQuit":
            return 1  # the person left it at a breakpoint
        if isinstance(error, SystemExit):
            code = _code_of(error)
        elif isinstance(error, KeyboardInterrupt):
            code = 130
        else:
            code = 1
            told = format_error(error) + "\n" if isinstance(error, LabmakeError) else ""
            sys.stderr.write(told or _told(error, root) + _hint(error, root))
        if debug and code:
            look_at(error, root, _OURS)
        return code
    return 0


def _make_labmake_importable() -> None:
    from importlib.util import find_spec

    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    if "labmake" not in sys.modules and find_spec("labmake") is None:
        sys.path.append(os.path.dirname(os.path.dirname(_HERE)))


def _search_path(root: str, file: str, project: str) -> list[str]:
    """The recipe file's folder, `src/`, the root, then what was there.

    Folders of the project itself, which an editable install puts there, are left out: what they hold was not hashed.
    """
    own = [os.path.dirname(os.path.join(root, file)), os.path.join(root, "src"), root]
    inside = os.path.join(project, "")
    kept = [
        entry
        for entry in sys.path
        if not (project and os.path.join(entry, "").startswith(inside)) or entry.startswith(sys.prefix)
    ]
    return list(dict.fromkeys([*own, *kept]))


def _run_function(step: Mapping[str, Any], root: str) -> None:
    from labmake.executors.pycall import bind, settle

    for place in step["outputs"].values():
        if place.endswith("/"):
            os.makedirs(place, exist_ok=True)
        elif os.path.isfile(place):
            os.unlink(place)  # a person has run the step before, in the same folder
    _seed()
    file = step["recipe"]["file"]
    if file not in _MODULES:
        _MODULES[file] = _imported(file, root)
        _VARIABLES.update(os.environ)
    function = _find(_MODULES[file], step)
    positional, named = bind(function, step)
    # Importing the module or loading an input may have brought numpy in.
    _seed()
    result = function(*positional, **named)
    os.chdir(root)
    settle(result, step)


def _imported(file: str, root: str) -> ModuleType:
    """The recipe file as a module under its own name, there for pickle and dataclasses before it is run.

    Annotations are postponed as they are where rules are read, so that a file which loads there also runs here. The
    code's file name is relative: it goes into warnings and pickled functions, which shall not differ from run to run.
    """
    import __future__

    from importlib.util import module_from_spec, spec_from_file_location

    path = os.path.join(root, file)
    name = os.path.splitext(os.path.basename(file))[0]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    exec(_compiled(file, path, __future__.annotations.compiler_flag), module.__dict__)
    return module


def _compiled(file: str, path: str, flags: int) -> Any:
    with open(path, "rb") as opened:
        source = opened.read()
    if (source, file, flags) not in _AHEAD:
        return compile(source, file, "exec", flags, dont_inherit=True)
    return _AHEAD[source, file, flags]


_AHEAD: dict[tuple[bytes, str, int], Any] = {}
"""What a fork server has compiled for its children, by source, file name and flags: a thousand lines take 20 ms."""


def _compile_ahead(kind: str, file: str) -> None:
    import __future__

    flags = __future__.annotations.compiler_flag if kind == "function" else 0
    with open(file, "rb") as opened:
        source = opened.read()
    _AHEAD[source, file, flags] = compile(source, file, "exec", flags, dont_inherit=True)


def _find(module: ModuleType, step: Mapping[str, Any]) -> Any:
    from labmake.errors import RuleError

    file, name = step["recipe"]["file"], step["recipe"]["function"]
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if callable(found):
        return found
    functions = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    raise RuleError(
        f"{file} has no function {name}",
        [("file", file), ("it has", ", ".join(functions) or "no functions")],
        ["correct the name in py(…)"],
    )


def _seed() -> None:
    """Seed the random numbers of the standard library, and of numpy: now, or when it imports what makes them."""
    text = os.environ.get("LABMAKE_SEED")
    if not text:
        return
    import random

    random.seed(int(text))
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(int(text))
    elif not any(isinstance(finder, _SeedsNumpy) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SeedsNumpy(int(text)))


class _SeedsNumpy:
    """Finds numpy.random, which may be imported when the function already runs, and seeds it as soon as it is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name != "numpy.random":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_seed(module: Any) -> None:
                execute(module)
                module.seed(self.seed)

            spec.loader.exec_module = execute_and_seed  # type: ignore[method-assign]
        return spec


def _run_script(step: Mapping[str, Any], root: str) -> None:
    from types import ModuleType

    file = step["recipe"]["file"]
    path = os.path.join(root, file)
    module = ModuleType("__main__")
    module.__file__ = path
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    sys.argv = [file, *_arguments(step)]
    _seed()
    exec(_compiled(file, path, 0), module.__dict__)


def _arguments(step: Mapping[str, Any]) -> Iterator[str]:
    """`name=path` of inputs (repeated for several files), then parameters, then outputs."""
    for name, value in step.get("inputs", {}).items():
        yield from (f"{name}={path}" for path in _paths(value))
    for name, value in step.get("parameters", {}).items():
        yield f"{name}={value if isinstance(value, str) else json.dumps(value)}"
    for name, place in step["outputs"].items():
        yield f"{name}={place}"


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for element in value.values():
            yield from _paths(element)
    elif isinstance(value, list):
        for element in value:
            yield from _paths(element["path"] if isinstance(element, dict) and "path" in element else element)


def _code_of(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        code = int(stop.code or 0)
        # The system keeps the lowest eight bits: 256 would pass for success.
        return code if 0 <= code < 256 else 1
    sys.stderr.write(f"{stop.code}\n")
    return 1


def _told(error: BaseException, root: str) -> str:
    """The traceback without the frames of this program and of the import system, paths relative to the step folder."""
    import traceback

    told = traceback.TracebackException.from_exception(error)
    _strip(told)
    return "".join(told.format()).replace(root + os.sep, "")


def _strip(told: traceback.TracebackException) -> None:
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(_OURS)]
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _strip(other)


def _hint(error: BaseException, root: str) -> str:
    """A line that says why a module or file is not there, for the step folder hides what no rule names."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            file = cause.name.replace(".", "/")
            return (
                f"hint: the step sees only what its rule names: for a module of this project that is imported in a way "
                f'labmake cannot read, add code=["src/{file}.py"] to the rule; a package must be installed\n'
            )
        if isinstance(cause, FileNotFoundError) and (place := _relative(cause, root)):
            return (
                f"hint: the step sees only what its rule names: name {place} as an input of the rule; "
                "what the step itself writes lies in the folder of `out` or in `scratch`\n"
            )
        if type(cause).__name__ == "BdbQuit":
            return "hint: nobody is at the terminal while labmake builds; `labmake debug TARGET` runs this step there\n"
        cause = cause.__cause__ or cause.__context__
    return ""


def _relative(error: FileNotFoundError, root: str) -> str:
    """The missing file's path in the step folder, "the file" if the error does not say it, "" if it lies elsewhere."""
    frame = error.__traceback__
    while frame is not None:
        if os.path.basename(frame.tb_frame.f_code.co_filename) == "subprocess.py":
            return ""
        frame = frame.tb_next
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return "the file"
    path = os.path.join(root, os.fsdecode(error.filename))
    return os.path.relpath(path, root) if path.startswith(root + os.sep) else ""


if __name__ == "__main__":
    sys.exit(main())
