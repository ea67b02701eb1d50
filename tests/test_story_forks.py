"""Python steps that are forked: as a fresh interpreter would make them, and whatever a step does, others go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from space import Space, wait_until
from told import told

from labmake.executors import forking
from labmake.store.digest import hash_file
from labmake.store.live import view

EXAMPLE = Path(__file__).parent.parent / "examples" / "covariance"
TARGETS = (
    "data/fits/0.csv",
    "data/fits/1.csv",
    "data/spectrum.csv",
    "figures/correlations.svg",
    "figures/spectrum.svg",
)

pytestmark = pytest.mark.skipif(not forking.FORKS, reason="steps are forked on Linux only")

FORKED = """
def parent():
    with open(f"/proc/{os.getppid()}/cmdline") as file:
        return file.read().rstrip("\\0").split("\\0")[-1].rpartition("/")[2]
"""
"""A function for scripts: `pystep.py` if the step was forked."""


def noting(space: Space, text: str) -> str:
    """A line that appends to the space's notes, for scripts."""
    return f"open({str(space.notes)!r}, 'a').write({text} + '\\n')"


def package(space: Space, name: str, text: str) -> dict[str, str]:
    """A package installed outside of the project; the variables by which steps find it."""
    folder = space.root.parent / "installed"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


def test_steps_with_the_same_imports_are_forked_from_one_server(space: Space) -> None:
    space.write(
        "script.py",
        "import os\nimport numpy\n"
        + FORKED
        + 'rule("data/{k}.json", run=py("script.py:f"))\n'
        + 'rule("data/all.json", x=each("data/{k}.json", k=list("abc")), run=py("script.py:g"))\n'
        + "def f(k: str):\n    return [parent(), os.getppid(), os.getpid(), float(numpy.arange(3).sum())]\n"
        + "def g(x: dict[str, list]):\n    return list(x.values())\n",
    )
    space.build("data/all.json", "--jobs", "1")
    steps = [space.json(f"data/{k}.json") for k in "abc"]
    assert {(name, total) for name, _, _, total in steps} == {("pystep.py", 3.0)}  # type: ignore[misc]
    assert len({server for _, server, _, _ in steps}) == 1 and len({pid for _, _, pid, _ in steps}) == 3  # type: ignore[misc]


STATE = """
import gc
import json
import os
import resource
import signal
import sys
import threading
import warnings
{imports}

def state():
    modules = {{name for name in sys.modules if not name.startswith(("labmake.", "encodings."))}}
    handlers = {{n: str(signal.getsignal(n)) for n in range(1, 32)}}
    limits = {{n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")}}
    tasks = [open("/proc/self/task/" + task + "/comm").read() for task in os.listdir("/proc/self/task")]
    tasks.remove(tasks[0])
    tasks = [task for task in tasks if task != "jemalloc_bg_thd\\n"]
    umask = os.umask(0)
    os.umask(umask)
    streams = [[str(type(s)), s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through]
               for s in (sys.stdin, sys.stdout, sys.stderr)]
    main = sys.modules["__main__"]
    return {{
        "modules": sorted(modules), "flags": str(sys.flags), "argv": sys.argv, "orig_argv": sys.orig_argv,
        "path": [p.replace(os.getcwd(), ".") for p in sys.path], "streams": streams, "hash": hash("x"),
        "main": [main.__name__, os.path.basename(main.__file__)], "umask": umask, "handlers": handlers,
        "environment": list({{n: v for n, v in os.environ.items() if n not in ("LABMAKE_STEP", "TMPDIR")}}.items()),
        "limits": limits, "leads": [os.getpid() == os.getpgrp(), os.getpid() == os.getsid(0)],
        "files": sorted(set(os.listdir(".")) - {{"__pycache__"}}), "filters": [str(f) for f in warnings.filters],
        "threads": [threading.active_count(), len(tasks)], "gc": gc.isenabled(),
        "descriptors": len(os.listdir("/proc/self/fd")), "recursion": sys.getrecursionlimit(),
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))), "nice": os.nice(0),
        "finders": [str(type(f)) + getattr(f, "__name__", "") for f in sys.meta_path], "hooks": len(sys.path_hooks),
        "stdin": os.path.realpath("/proc/self/fd/0"), "affinity": sorted(os.sched_getaffinity(0)),
    }}
"""


@pytest.mark.parametrize(
    ("imports", "recipe"),
    [
        ("", "py('script.py:made')"),
        ("import numpy", "py('script.py:made')"),
        ("import numpy\nimport pandas as pd\nfrom matplotlib import pyplot", "py('script.py:made')"),
        ("import numpy", "py('src/made.py')"),
        ("import argparse\nimport pandas", "py('src/made.py')"),
    ],
)
def test_a_forked_step_finds_its_process_as_a_fresh_one_does(space: Space, imports: str, recipe: str) -> None:
    text = STATE.format(imports=imports)
    space.write("src/made.py", text + 'json.dump(state(), open(sys.argv[-1].partition("=")[2], "w"))\n')
    rules = f"rule('data/forked.json', run={recipe})\nrule('data/fresh.json', run={recipe}, wrap='env')\n"
    space.write("script.py", text + "def made():\n    return state()\n" + rules)
    space.build("--jobs", "1")
    forked, fresh = space.json("data/forked.json"), space.json("data/fresh.json")
    assert isinstance(forked, dict) and isinstance(fresh, dict)
    for one in (forked, fresh):
        one["argv"] = [word.replace("forked", "fresh") for word in one["argv"]]
        one["environment"] = [pair for pair in one["environment"] if pair[0] != "LABMAKE_SEED"]
    for name in fresh:
        assert forked[name] == fresh[name], name


OTHERS = """
import ctypes, os, signal, subprocess, sys, time
rule("data/bad.json", run=py("script.py:bad"){options})
rule("data/good-{{k}}.json", run=py("script.py:good"))
rule("data/all.json", x=each("data/good-{{k}}.json", k=["1", "2", "3"]), run=py("script.py:collect"))
def good(k: int):
    return k
def collect(x: dict[str, int]):
    return x
def bad():
    {body}
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(7)", ("exit code  7",)),
        ("ctypes.string_at(0)", ("killed by SIGSEGV",)),
        ("os.abort()", ("killed by SIGABRT",)),
        ("os.kill(os.getpid(), 9)", ("killed by SIGKILL",)),
        ("os.kill(0, 9)", ("killed by SIGKILL",)),
        ("os.kill(os.getppid(), 9); time.sleep(60)", ("killed by SIGKILL", "had started the step")),
        ("os.kill(os.getppid(), 15); time.sleep(60)", ("killed by SIGTERM", "had started the step")),
        ("os.kill(os.getppid(), 2); time.sleep(60)", ("had started the step",)),
        ("os.killpg(os.getpgid(os.getppid()), 9); time.sleep(60)", ("killed by SIGKILL", "had started the step")),
        ("os.kill(os.getppid(), 19); os._exit(3)", ("exit code  3",)),
        ("os.close(1); os.close(2); print('x'); return 1", ("exit code  1",)),
        ("open('/dev/full', 'w').write('x' * 9999)", ("No space left on device",)),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 ** 29, 2 ** 29)); return len(bytes(2 ** 30))",
            ("MemoryError",),
        ),
        ("import shutil; shutil.rmtree(os.getcwd()); return 1", ("data/bad.json",)),
        ("os.chdir('/'); raise ValueError('elsewhere')", ("ValueError: elsewhere",)),
        ("signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(600)", ("exceeded its time (3 s)", "deaf")),
        ("sys.exit('not today')", ("not today", "exit code  1")),
        ("raise KeyboardInterrupt", ("exit code  130",)),
        ("sys.modules.clear(); sys.exit(4)", ("exit code  4",)),
        ("sys.stdout = None; sys.exit(5)", ("exit code  5",)),
    ],
)
def test_what_a_step_does_to_itself_and_its_parent_is_its_own_failure(
    space: Space, body: str, words: tuple[str, ...]
) -> None:
    space.write("script.py", OTHERS.format(body=body, options=", time='3s'" if "time.sleep" in body else ""))
    told(space, "data/bad.json", *words, code=1, command=("build", "data/bad.json", "data/all.json", "--jobs", "1"))
    assert space.ran == ["data/all.json", "data/good-1.json", "data/good-2.json", "data/good-3.json"]
    assert space.json("data/all.json") == {"1": 1, "2": 2, "3": 3}


@pytest.mark.parametrize(
    "body",
    [
        "os.chdir('/'); return 1",
        "os.close(0); return 1",
        "os.close(1); os.close(2); return 1",
        "sys.stdout.close(); return 1",
        "sys.stderr.write('x' * 10 ** 8); return 1",
        "signal.signal(15, signal.SIG_IGN); return 1",
        "os.umask(0o777); return 1",
        "os.environ.clear(); return 1",
        "sys.path.clear(); return 1",
        "import gc; gc.disable(); return 1",
        "os.setpriority(os.PRIO_PROCESS, 0, 19); return 1",
    ],
)
def test_what_a_step_changes_of_its_process_spoils_nothing(space: Space, body: str) -> None:
    space.write("script.py", OTHERS.format(body=body, options=""))
    space.build("data/bad.json", "data/all.json", "--jobs", "1")
    assert space.json("data/bad.json") == 1 and space.json("data/all.json") == {"1": 1, "2": 2, "3": 3}


def test_what_a_step_leaves_in_its_group_is_ended_with_it(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        import os, time
        rule("data/a.json", run=py("script.py:leaves"))
        def leaves():
            pid = os.fork()
            if not pid:
                time.sleep(600)
            {noting(space, "str(pid)")}
            return 1
        """,
    )
    space.build()
    (pid,) = map(int, space.noted())
    wait_until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_step_whose_server_was_killed_runs_once_again_and_nobody_is_told(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        import os, time
        rule("data/a.json", run=py("script.py:slow"))
        rule("data/b.json", run=py("script.py:other"))
        def slow():
            {noting(space, "f'{os.getppid()} {os.getpid()}'")}
            while len(open({str(space.notes)!r}).readlines()) < 2:
                time.sleep(0.01)
            return sorted(os.listdir("."))
        def other():
            return 1
        """,
    )
    running = space.start("build", "--jobs", "2")
    wait_until(space.noted)
    server, step = map(int, space.noted()[0].split())
    os.kill(server, signal.SIGKILL)
    running.end(0)
    assert space.ran == ["data/a.json", "data/b.json"] and len(space.noted()) == 2
    assert space.json("data/a.json") == [".here", "data", "script.py"]
    assert not _runs(step)


def test_steps_and_servers_end_with_a_killed_coordinator(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        import os, time
        rule("data/{{k}}.json", run=py("script.py:slow"))
        rule("data/all.json", x=each("data/{{k}}.json", k=["1", "2"]), run=sh("cat {{x}} > {{out}}"))
        def slow(k):
            {noting(space, "f'{os.getppid()} {os.getpid()}'")}
            time.sleep(600)
        """,
    )
    running = space.start("build", "data/all.json", "--jobs", "2")
    wait_until(lambda: len(space.noted()) == 2)
    running.kill()
    for pid in map(int, " ".join(space.noted()).split()):
        wait_until(lambda pid=pid: not _runs(pid))  # type: ignore[misc]


def test_an_interrupt_lets_a_forked_step_end_and_a_second_one_stops_it(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        import os, time
        rule("data/a.json", run=py("script.py:slow"))
        def slow():
            {noting(space, "f'{os.getppid()} {os.getpid()}'")}
            time.sleep(600)
        """,
    )
    running = space.start("build")
    wait_until(space.noted)
    running.interrupt()
    wait_until(lambda: "again to stop" in running.text)
    running.interrupt()
    assert "Traceback" not in running.end(130).text
    for pid in map(int, space.noted()[0].split()):
        wait_until(lambda pid=pid: not _runs(pid))  # type: ignore[misc]


# What is imported ahead. -------------------------------------------------------------------------------------------

PACKAGE = """
import os
{body}
loaded_by = os.getpid()
"""


@pytest.mark.parametrize(
    ("body", "shared"),
    [
        ("", True),
        ("print('hello'); os.write(2, b'there\\n')", True),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", False),
        ("kept = open('/dev/null')", False),
        ("import subprocess; child = subprocess.Popen(['sleep', '600'])", False),
        ("open('made-at-import', 'w').close()", False),
        ("import tempfile; folder = tempfile.mkdtemp()", False),
        ("where = os.getcwd()", False),
        ("import random; chosen = random.random()", True),
        ("import sys; sys.path.append('/nowhere')", False),
        ("import nosuchmodule", False),
        ("os._exit(0)", False),
        ("raise SystemExit(3)", False),
        ("os.kill(os.getpid(), 9)", False),
    ],
)
def test_a_package_that_a_fork_would_notice_is_imported_by_each_step(space: Space, body: str, shared: bool) -> None:
    env = package(space, "odd", PACKAGE.format(body=body))
    space.write(
        "script.py",
        """
        import os
        import odd
        rule("data/{k}.json", run=py("script.py:f"))
        rule("data/all.json", x=each("data/{k}.json", k=["1", "2"]), run=sh("cat {x} > {out}"))
        def f(k):
            return [odd.loaded_by, os.getpid(), odd.__file__]
        """,
    )
    fails = "exit" in body.lower() or "kill" in body or "nosuch" in body
    space.build("data/all.json", "--jobs", "1", code=1 if fails else 0, env=env)
    if fails:
        words = {"kill": "killed by SIGKILL", "nosuch": "No module named 'nosuchmodule'", "(3)": "exit code  3"}
        assert all(told in space.last for word, told in words.items() if word in body), space.last.text
        return
    steps = [space.json(f"data/{k}.json") for k in "12"]
    assert all((by == pid) is not shared for by, pid, _ in steps)  # type: ignore[misc]
    if "hello" in body:
        assert [space.run("logs", f"data/{k}.json").text for k in "12"] == ["hello\nthere\n"] * 2


def test_what_stands_below_a_setting_is_imported_with_that_setting(space: Space) -> None:
    env = package(space, "odd", "import os\nset = os.environ.get('ODD')\n")
    space.write(
        "script.py",
        """
        import os
        os.environ["ODD"] = "1"
        import odd
        rule("data/a.json", run=py("script.py:f"))
        rule("data/b.json", run=py("script.py:f"))
        def f():
            return [odd.set]
        """,
    )
    space.build(env=env)
    assert space.json("data/a.json") == space.json("data/b.json") == ["1"]


def test_a_module_of_the_project_is_found_before_a_package_that_was_imported_ahead(space: Space) -> None:
    env = package(space, "odd", "try:\n    import maybe\nexcept ImportError:\n    maybe = None\n")
    space.write("src/maybe.py", "x = 1\n")
    space.write(
        "script.py",
        """
        import odd
        rule("data/a.json", run=py("script.py:f"))
        rule("data/b.json", run=py("script.py:f"), code=["src/maybe.py"])
        rule("data/c.json", run=py("script.py:f"))
        def f():
            return [odd.maybe is not None]
        """,
    )
    space.build("--jobs", "1", env=env)
    assert [space.json(f"data/{k}.json") for k in "abc"] == [[False], [True], [False]]


def test_settings_at_the_root_of_a_step_folder_are_read_by_what_is_imported_there(space: Space) -> None:
    env = package(space, "odd", "import os\nset = os.path.exists('oddrc') and open('oddrc').read()\n")
    space.write("./oddrc", "blue")
    space.write(
        "script.py",
        """
        import odd
        rule("data/a.json", run=py("script.py:f"))
        rule("data/b.json", run=py("script.py:f"), code=["oddrc"])
        rule("data/c.json", run=py("script.py:f"))
        def f():
            return [odd.set]
        """,
    )
    space.build("--jobs", "1", env=env)
    assert [space.json(f"data/{k}.json") for k in "abc"] == [[False], ["blue"], [False]]


def test_a_package_that_only_another_step_imports_is_not_there(space: Space) -> None:
    space.write("src/one.py", "import sys\nimport xml.dom.minidom\ndef f():\n    return 'xml' in sys.modules\n")
    space.write("src/two.py", "import sys\ndef f():\n    return 'xml' in sys.modules\n")
    space.write(
        "script.py",
        'rule("data/a.json", run=py("src/one.py:f"))\nrule("data/b.json", run=py("src/two.py:f"))\n',
    )
    space.build("--jobs", "1")
    assert [space.json(f"data/{k}.json") for k in "ab"] == [True, False]


def test_random_numbers_of_forked_steps_are_those_of_their_seeds(space: Space) -> None:
    space.write(
        "script.py",
        """
        import random
        import numpy
        rule("data/{k}.json", run=py("script.py:f"))
        rule("data/fresh/{k}.json", run=py("script.py:f"), wrap="env")
        rule("data/all.json", x=each("data/{k}.json", k=["1", "2"]), run=sh("cat {x} > {out}"))
        def f(k):
            return [random.random(), numpy.random.rand()]
        """,
    )
    space.build("data/all.json", "--jobs", "1")
    one, two = space.json("data/1.json"), space.json("data/2.json")
    assert one != two
    space.build("-f", "data/1.json")
    assert space.json("data/1.json") == one


# The end of a step. ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["", ", wrap='env'"])
@pytest.mark.parametrize("recipe", ["py('script.py:f')", "py('src/f.py')"])
@pytest.mark.parametrize(
    "body",
    [
        "kept = open(place, 'w'); kept.write('text')",
        "globals()['kept'] = open(place, 'w'); kept.write('text')",
        "sys.kept = open(place, 'w'); sys.kept.write('text')",
        "import colorsys; colorsys.kept = open(place, 'w'); colorsys.kept.write('text')",
        "import atexit; atexit.register(lambda: open(place, 'w').write('text'))",
        "import threading; threading.Timer(0.2, lambda: open(place, 'w').write('text')).start()",
        "kept = zipfile.ZipFile(place, 'w'); kept.writestr('text', 'text'); globals()['kept'] = kept",
        "C = ctypes.CDLL(None); C.fopen.restype = ctypes.c_void_p; "
        "C.fputs(b'text', ctypes.c_void_p(C.fopen(place.encode(), b'w')))",
    ],
)
def test_what_a_step_did_not_close_is_written_when_it_ends(space: Space, body: str, recipe: str, wrap: str) -> None:
    text = "import ctypes\nimport sys\nimport zipfile\n"
    space.write("src/f.py", text + f"place = sys.argv[-1].partition('=')[2]\n{body}\n")
    rules = f"rule('data/a', run={recipe}{wrap})\n"
    space.write(
        "script.py", text + rules + f"def f(out):\n    place = str(out)\n    open(place, 'w').close()\n    {body}\n"
    )
    space.build()
    assert b"text" in space.path("data/a").read_bytes()


def test_what_c_libraries_print_is_in_the_log(space: Space) -> None:
    space.write(
        "script.py",
        """
        import ctypes
        rule("data/a.json", run=py("script.py:f"))
        def f():
            ctypes.CDLL(None).printf(b"from C\\n")
            return 1
        """,
    )
    space.build()
    assert space.run("logs", "data/a.json").text == "from C\n"


# What a step has booked. -------------------------------------------------------------------------------------------


def test_a_forked_step_has_as_many_threads_as_it_booked(space: Space) -> None:
    space.write(
        "script.py",
        """
        import os
        import numpy
        import threadpoolctl
        rule("data/{k}-{n}.json", run=py("script.py:f"), cpus=1)
        rule("data/two-{n}.json", run=py("script.py:f"), cpus=2)
        group("all", *[f"data/{k}-{n}.json" for n in "123" for k in ("one", "two")])
        def f(n):
            before = len(os.listdir("/proc/self/task"))
            a = numpy.ones((400, 400))
            total = float((a @ a).sum())
            (blas,) = {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}
            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
            return [blas, before, len(os.listdir("/proc/self/task")), [os.environ[name] for name in names], total]
        """,
    )
    space.build("all", "--jobs", "2")
    for n in "123":
        assert space.json(f"data/one-{n}.json") == [1, 1, 1, ["1"] * 3, 64e6]
        blas, before, after, variables, total = space.json(f"data/two-{n}.json")  # type: ignore[misc]
        assert (blas, after, variables, total) == (2, 2, ["2"] * 3, 64e6) and before <= 2


def test_the_peak_memory_of_a_forked_step_is_its_own(space: Space) -> None:
    env = package(space, "large", "held = bytearray(b'1') * (50 << 20)\nbytearray(b'1') * (300 << 20)\n")
    space.write(
        "script.py",
        """
        import large
        rule("data/small.json", run=py("script.py:small"))
        rule("data/more.json", run=py("script.py:more"))
        def small():
            return len(large.held)
        def more():
            return len(bytearray(b"1") * (100 << 20))
        """,
    )
    space.build("--jobs", "1", env=env)
    small, more = (peak(space, name) for name in ("data/small.json", "data/more.json"))
    # What an import needed for a moment in the server is not the step's; what it holds is, as in a fresh interpreter.
    assert 50 << 20 < small < 150 << 20 and 90 << 20 < more - small < 110 << 20


def peak(space: Space, target: str) -> int:
    """The peak memory in bytes that the trace of a target with one output tells."""
    seen = view(space.root / ".git" / "labmake" / "store")
    output = {"out": hash_file(str(space.path(target)))[0]}
    (found,) = [t.peak for kind, key in seen.places if kind == "T" for t, _ in seen.traces(key) if t.outputs == output]
    seen.close()
    return found


def test_the_example_has_the_same_results_forked_and_fresh(tmp_path: Path) -> None:
    results: list[dict[str, bytes]] = []
    for name, forks in (("forked", True), ("fresh", False)):
        project = tmp_path / name
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("generated", ".git", ".labmake"))
        subprocess.run(["git", "init", "-q"], cwd=project, check=True)
        code = (
            f"from labmake.executors import forking; forking.FORKS = {forks}; import labmake.cli.entry as it; it.main()"
        )
        words = [sys.executable, "-c", code, "build", *TARGETS]
        subprocess.run(words, cwd=project, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        generated = project / "generated"
        results.append({str(p.relative_to(generated)): p.read_bytes() for p in generated.rglob("*") if p.is_file()})
    assert results[0] == results[1] and results[0]
