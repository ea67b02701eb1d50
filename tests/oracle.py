"""The oracle: random pipelines, random edits, kill -9; after each step what an independent model says must be so.

python tests/oracle.py --histories 10000 [--seed S] [--killed F] [--jobs N] [--keep FOLDER]
python tests/oracle.py --seed S --histories 1 [--killed 1] [--steps 0,2,5]      one history again, or a part of it

After each build: the exit code and the files are those of the model (a clean build of the same sources, with what an
edit or a failure keeps), each action ran at most once, and exactly those ran that the store had no trace of.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from oracle_model import EDITED, Identity, Known, Look, NotMade, Pipeline, World, after, build, defaults, digest, lies
from oracle_pipelines import change_rule, content, draw, drop, grow, rename, resume, rewrite
from oracle_rules import HEADER, HELPER, TOOL, Code, code_text, rule_text

FIRST, SECOND = "2026-01-02-First", "2026-01-03-Second"
PATIENCE = 60.0
"""Seconds after which a process that should have ended will not."""


class Mismatch(Exception):
    """What labmake did is not what the model says."""


class History:
    """One project, and what is done to it, step by step; `story` tells it."""

    def __init__(self, seed: int, killed: bool, folder: Path) -> None:
        self.seed, self.killed, self.folder = seed, killed, folder
        self.root = folder / "project"
        self.story: list[str] = []
        self.ran = self.kills = self.builds = 0
        rng = random.Random(f"{seed} pipeline")
        (self.root / ".git").mkdir(parents=True)
        self.world = World(str(folder / "log"), Code())
        self.current = FIRST
        self.count = 100
        self.jobs = (rng.randrange(1, 5), rng.randrange(1, 5))
        self._add(FIRST, draw(rng))
        self.past: list[tuple[Code, Pipeline]] = []
        Path(self.world.log).touch()

    # The worktree ----------------------------------------------------------------------------------------------

    def _add(self, name: str, pipeline: Pipeline) -> None:
        self.world.pipelines[name] = pipeline
        self.world.trees[name], self.world.known[name], self.world.fuzzy[name] = {}, {}, set()
        self.write()

    @property
    def pipeline(self) -> Pipeline:
        return self.world.pipelines[self.current]

    def write(self, rng: random.Random | None = None) -> None:
        """Write what the world says: files whose content differs, in place or anew, and sometimes with their old time."""
        world = self.world
        wanted: dict[str, str] = {
            "src/tool.sh": TOOL.format(version=world.code.tool, comment=world.code.tool_comment),
            "src/helper.py": HELPER.format(version=world.code.helper, comment=world.code.comment),
        }
        for name, pipeline in world.pipelines.items():
            script = HEADER + "".join(rule_text(rule, world.log) for rule in pipeline.rules)
            wanted[f"scripts/{name}/script.py"] = script + world.comments.get(name, "")
            wanted |= {f"scripts/{name}/{path[2:]}": text for path, text in pipeline.sources.items()}
            wanted |= {r.code: code_text(r, world.log, world.code.comment) for r in pipeline.rules if r.code}
        for name in world.pipelines:
            for path in (self.root / "scripts" / name).glob("*"):
                if str(path.relative_to(self.root)) not in wanted and path.is_file():
                    path.unlink()
        for name, text in wanted.items():
            put(self.root / name, text.encode(), rng)

    def path(self, name: str, experiment: str = "") -> Path:
        """Where a generated file lies."""
        return (
            self.root / "generated" / (experiment or self.current) / ("" if name[:8] == "outputs/" else "assets") / name
        )

    def lying(self, experiment: str, temporary: bool = False) -> dict[str, bytes]:
        """The files that lie in an experiment's generated folder."""
        base = self.root / "generated" / experiment
        found = {}
        for path in base.rglob("*"):
            name = str(path.relative_to(base)).removeprefix("assets/")
            if path.is_file() and (not temporary or ".labmake-" not in path.name):
                found[name] = path.read_bytes()
        return found

    # Steps of a history ----------------------------------------------------------------------------------------

    def step(self, number: int) -> None:
        """One random edit (none before the first build) and a build; all is checked."""
        rng = random.Random(f"{self.seed} step {number}")
        if number:
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                self._edit(rng)
        words: list[str] = ["-j", str(rng.choice(self.jobs))]
        targets: list[str] = []
        if number and rng.random() < 0.2:
            targets = self._targets(rng)
        force = rng.random() < 0.1
        discard = rng.random() < (0.5 if self._has_edits() else 0.05)
        if self.killed and rng.random() < 0.6:
            self._build_and_kill(rng, words, targets, discard)
            if rng.random() < 0.5:
                self._edit(rng)
                targets = []
        experiments = [self.current]
        if len(self.world.pipelines) > 1 and rng.random() < 0.5:
            experiments, targets = [FIRST, SECOND], []
        self._build(experiments, words, targets, force, discard)
        if rng.random() < 0.4:
            self._build(experiments, words, targets, False, False, again=True)

    def end(self) -> None:
        """The last build: nothing fails, no edit is kept, and the tree is that of a clean build."""
        sources = {name: text.replace("FAIL", "ant") for name, text in self.pipeline.sources.items()}
        sources = {n: t for n, t in sources.items() if t.count('"ant"') < 2} | {
            n: '["ant"]\n' for n, t in sources.items() if t.count('"ant"') > 1
        }
        self.world.pipelines[self.current] = replace(self.pipeline, sources=sources)
        self.write()
        self.tell("nothing fails any more")
        words = ["-j", str(self.jobs[0])]
        self._build([self.current], words, [], False, True)
        self._build([self.current], words, [], False, False, again=True)

    def tell(self, text: str) -> None:
        self.story.append(text)

    def _targets(self, rng: random.Random) -> list[str]:
        """One or two targets that exist, whether by default or not."""
        look, _ = build(self.world, self.current, [])
        names = [path for node in look.nodes.values() for path in node.outputs or ()]
        names += [path for rule in self.pipeline.rules if not rule.wildcards for path in rule.outputs]
        names += [
            f"{r.outputs[0].split('/')[0]}/{rng.randrange(4)}.txt" for r in self.pipeline.rules if r.plan == "search"
        ]
        return rng.sample(names, min(len(names), rng.randrange(1, 3)))

    def _has_edits(self) -> bool:
        return any(text.startswith(EDITED) for text in self.world.trees[self.current].values())

    def _whole(self, name: str, path: str) -> str:
        return str(self.path(path, name).relative_to(self.root)) + ("/" if path.endswith("/") else "")

    # Builds ----------------------------------------------------------------------------------------------------

    def _command(self, names: Sequence[str], words: Sequence[str], targets: Sequence[str]) -> list[str]:
        if len(names) > 1:
            targets = [self._whole(name, path) for name in names for path in defaults(self.world.pipelines[name])]
        else:
            targets = [self._whole(names[0], path) for path in targets]
        return ["build", *words, "-e", self.current, *targets]

    def _build(
        self,
        names: Sequence[str],
        words: Sequence[str],
        targets: Sequence[str],
        force: bool,
        discard: bool,
        again: bool = False,
    ) -> None:
        """Build, and compare everything with the model."""
        world = self.world
        words = [*words, *(["-f"] if force else []), *(["--discard-edits"] if discard else [])]
        command = self._command(names, words, targets)
        looks = {name: build(world, name, targets, force=force, discard=discard) for name in names}
        codes = [code for _, code in looks.values()]
        expected = 1 if 1 in codes else max(codes)
        self.tell(f"labmake {' '.join(command)}   → {expected}")
        self.builds += 1
        code, printed = self._labmake(command)
        if code != expected:
            raise Mismatch(f"exit code {code}, expected {expected}\n{printed}")
        must, may = self._runs([look for look, _ in looks.values()])
        ran = self._ran()
        if again and any(not self._fails(looks, identity) for identity in must):
            raise Mismatch("the model itself wants a second build to run something")
        self._compare_runs(ran, must, may, printed)
        for name, (look, _) in looks.items():
            complete = not targets and len(names) == 1 and expected == 0
            tree, known = after(world, look, complete)
            there = self.lying(name)
            if there != tree:
                raise Mismatch(f"the files are not those of a clean build\n{_differences(there, tree)}\n{printed}")
            for node in look.nodes.values():
                if node.outputs is not None:
                    world.done.add(node.identity)
                    world.unsure.pop(node.identity, None)
            world.trees[name], world.known[name] = tree, known
            world.fuzzy[name] -= set(look.nodes)

    def _fails(self, looks: dict[str, tuple[Look, int]], identity: Identity) -> bool:
        return any(
            n.outputs is None for look, _ in looks.values() for n in look.nodes.values() if n.identity == identity
        )

    def _runs(self, looks: Sequence[Look]) -> tuple[dict[Identity, str], dict[Identity, str]]:
        """The actions that have to run, and those that may since a killed build has run them, with their lines."""
        must: dict[Identity, str] = {}
        may: dict[Identity, str] = {}
        for look in looks:
            for node in look.nodes.values():
                if node.runs:
                    unsure = node.identity in self.world.unsure and node.name not in look.forced
                    (may if unsure else must)[node.identity] = node.name.rstrip("/")
        return must, {identity: line for identity, line in may.items() if identity not in must}

    def _compare_runs(
        self, ran: Counter[str], must: dict[Identity, str], may: dict[Identity, str], printed: str
    ) -> None:
        wanted, perhaps = Counter(must.values()), Counter(may.values())
        missing, more = wanted - ran, ran - wanted - perhaps
        if missing or more:
            raise Mismatch(
                f"ran and need not: {sorted(more.elements())}\nhad to run and did not: {sorted(missing.elements())}\n"
                f"ran: {sorted(ran.elements())}\n{printed}"
            )
        lost = ran - wanted
        for identity, line in may.items():
            if lost[line]:
                kill = self.world.unsure[identity]
                self.world.losses[kill] -= 1
                lost[line] -= 1
                if self.world.losses[kill] < 0:
                    raise Mismatch(f"a killed build lost more traces than it ran steps at once: {line}\n{printed}")

    def _ran(self) -> Counter[str]:
        """The steps that noted that they run since the last call."""
        lines = Path(self.world.log).read_text().splitlines()
        Path(self.world.log).write_text("")
        self.ran += len(lines)
        return Counter(line.rstrip("/") for line in lines)

    def _labmake(self, words: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end; its exit code and what it printed."""
        pid, output = start(words, self.root, self.folder / "printed")
        _, status = os.waitpid(pid, 0)
        text = output.read_text(errors="replace")
        if "Traceback" in text:
            raise Mismatch(f"a traceback\n{text}")
        return os.waitstatus_to_exitcode(status), text

    # Kill -9 ---------------------------------------------------------------------------------------------------

    def _build_and_kill(self, rng: random.Random, words: Sequence[str], targets: Sequence[str], discard: bool) -> None:
        """Build, and kill the coordinator at a random moment: after some steps have begun, or after some time."""
        world, name = self.world, self.current
        look, _ = build(world, name, targets, discard=discard)
        must, may = self._runs([look])
        if not (must or may):
            return
        words = [*words, *(["--discard-edits"] if discard else [])]
        command = self._command([name], words, targets)
        after_steps = rng.randrange(len(must) + len(may) + 1)
        delay = rng.random() * rng.choice([0.01, 0.05, 0.3])
        self.tell(f"labmake {' '.join(command)}   killed after {after_steps} steps and {delay * 1000:.0f} ms")
        pid, output = start(command, self.root, self.folder / "killed")
        ended = False
        while not ended and Path(world.log).read_bytes().count(b"\n") < after_steps:
            time.sleep(0.001)
            ended = os.waitpid(pid, os.WNOHANG)[0] != 0
        if not ended:
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            ended = os.WIFEXITED(os.waitpid(pid, 0)[1])
        self.kills += not ended
        if rng.random() < 0.7:
            wait_for_the_end(self.root)
        self._after_kill(look, must, may, int(words[1]), output.read_text(errors="replace"))

    def _after_kill(
        self, look: Look, must: dict[Identity, str], may: dict[Identity, str], jobs: int, printed: str
    ) -> None:
        """What may be after a kill: some of the steps have run, each file is the old one or the new one, whole."""
        world, name = self.world, look.name
        wait_for_the_end(self.root)
        ran = self._ran()
        more = ran - Counter([*must.values(), *may.values()])
        if more:
            raise Mismatch(f"ran and need not, in a killed build: {sorted(more.elements())}\n{printed}")
        world.losses[self.builds] = jobs
        for node in look.nodes.values():
            if node.runs and node.outputs is not None and ran[node.name.rstrip("/")]:
                world.unsure.setdefault(node.identity, self.builds)
        before, there = world.trees[name], self.lying(name, temporary=True)
        new, known = after(world, look, complete=False)
        torn = [p for p, text in there.items() if text not in (before.get(p), new.get(p))]
        gone = [p for p, text in before.items() if text.startswith(EDITED) and p not in there and text == new.get(p)]
        if torn or gone:
            raise Mismatch(
                f"after a kill these files are neither old nor new: {torn}, these are lost: {gone}\n{printed}"
            )
        for node in look.nodes.values():
            placed = node.outputs is not None and all(lies(there, path, data) for path, data in node.outputs.items())
            if placed:
                world.known[name][node.name] = known[node.name]
            world.fuzzy[name].add(node.name)
        world.trees[name] = there

    # Edits -----------------------------------------------------------------------------------------------------

    def _edit(self, rng: random.Random) -> None:
        """One random change of the project."""
        self.past.append((self.world.code, self.pipeline))
        kinds = [getattr(self, f"_edit_{kind}") for kind in EDITS]
        chosen = rng.choices(kinds, list(EDITS.values()))[0]
        self.tell(f"{chosen.__name__[6:]}: {chosen(rng) or ''}")
        self.write(rng)

    def _set(self, pipeline: Pipeline) -> None:
        self.world.pipelines[self.current] = pipeline

    def _edit_source(self, rng: random.Random) -> str:
        sources, what = rewrite(rng, self.pipeline.sources)
        self._set(replace(self.pipeline, sources=sources))
        return what

    def _edit_revert(self, rng: random.Random) -> str:
        """Back to what was, as git checkout does it."""
        number = rng.randrange(len(self.past))
        self.world.code, pipeline = self.past[number]
        self._set(pipeline)
        return f"to before edit {number}"

    def _edit_rule(self, rng: random.Random) -> str:
        pipeline, what = change_rule(rng, self.pipeline)
        self._set(pipeline)
        return what

    def _edit_code(self, rng: random.Random) -> str:
        what = rng.choice(["tool", "tool_comment", "helper", "comment"])
        self.world.code = replace(self.world.code, **{what: f"{what}{rng.randrange(3)}"})
        return what

    def _edit_rename(self, rng: random.Random) -> str:
        self.count += 1
        pipeline, what = rename(rng, self.pipeline, f"n{self.count}")
        self._set(pipeline)
        return what

    def _edit_grow(self, rng: random.Random) -> str:
        draft = resume(rng, self.pipeline, self.count)
        self._set(grow(draft, 1))
        self.count = draft.count
        return f"{len(self.pipeline.rules)} rules"

    def _edit_drop(self, rng: random.Random) -> str:
        pipeline, what = drop(rng, self.pipeline)
        self._set(pipeline)
        return what

    def _edit_missing(self, rng: random.Random) -> str:
        sources = dict(self.pipeline.sources)
        name = rng.choice(sorted(sources))
        if len(sources) > 1:
            del sources[name]
            self._set(replace(self.pipeline, sources=sources))
        return f"{name} is gone"

    def _edit_format(self, rng: random.Random) -> str:
        self.world.comments[self.current] = f"# {rng.random()}\n"
        rules = list(self.pipeline.rules)
        rng.shuffle(rules)
        self._set(replace(self.pipeline, rules=tuple(rules)))
        return "a comment, and the rules in another order"

    def _edit_touch(self, rng: random.Random) -> str:
        files = [path for path in self.root.rglob("*.*") if path.is_file() and ".git" not in path.parts]
        for path in rng.sample(sorted(files), min(3, len(files))):
            os.utime(path)
        return "files are touched"

    def _lying(self, rng: random.Random) -> str:
        return rng.choice(sorted(self.world.trees[self.current]) or [""])

    def _edit_delete(self, rng: random.Random) -> str:
        tree = self.world.trees[self.current]
        if rng.random() < 0.2:
            shutil.rmtree(self.root / "generated" / self.current, ignore_errors=True)
            tree.clear()
            return "all outputs"
        name = self._lying(rng)
        if name:
            self.path(name).unlink()
            del tree[name]
        return name

    def _edit_output(self, rng: random.Random) -> str:
        name = self._lying(rng)
        if name:
            self.count += 1
            text = EDITED + f" {self.count}\n".encode()
            self.world.trees[self.current][name] = text
            put(self.path(name), text, rng)
        return name

    def _edit_overwrite(self, rng: random.Random) -> str:
        """An output over another one: its content is known, so nothing is lost."""
        name, other = self._lying(rng), self._lying(rng)
        text = self.world.trees[self.current].get(other, EDITED)
        if not text.startswith(EDITED):
            self.world.trees[self.current][name] = text
            put(self.path(name), text, None)
        return f"{name} with {other}"

    def _edit_foreign(self, rng: random.Random) -> str:
        """A file of the user's own in a folder target."""
        folders = sorted({p.rpartition("/")[0] for p in self.world.trees[self.current] if self._in_folder(p)})
        if not folders:
            return "nothing"
        self.count += 1
        name = f"{rng.choice(folders)}/my{self.count}.txt"
        text = EDITED + f" {self.count}\n".encode()
        self.world.trees[self.current][name] = text
        put(self.path(name), text, None)
        return name

    def _in_folder(self, path: str) -> bool:
        return any(path.startswith(rule.outputs[0]) for rule in self.pipeline.rules if rule.outputs[0].endswith("/"))

    def _edit_clean(self, rng: random.Random) -> str:
        """`labmake clean`: what lies as it was placed goes."""
        code, printed = self._labmake(["clean", "-e", self.current])
        if code:
            raise Mismatch(f"clean ended with {code}\n{printed}")
        tree, there = self.world.trees[self.current], self.lying(self.current)
        doubt = set()
        for node, known in self.world.known[self.current].items():
            for path, data in known.outputs.items():
                if lies(tree, path, data):
                    gone = {name for name in tree if name == path or (path[-1] == "/" and name.startswith(path))}
                    tree = {name: text for name, text in tree.items() if name not in gone}
                    doubt |= gone if node in self.world.fuzzy[self.current] else set()
        left = {name: text for name, text in there.items() if name not in doubt}
        if left != {name: text for name, text in tree.items() if name not in doubt}:
            raise Mismatch(f"clean left the wrong files\n{_differences(left, tree)}\n{printed}")
        self.world.trees[self.current] = there
        return printed.strip()

    def _edit_copy(self, rng: random.Random) -> str:
        """A copied experiment, or the other one from now on."""
        if SECOND not in self.world.pipelines:
            self._add(SECOND, self.pipeline)
        self.current = FIRST if self.current == SECOND else SECOND
        return f"now {self.current}"

    def _edit_forget(self, rng: random.Random) -> str:
        """The state is disposable: without it nothing runs again."""
        shutil.rmtree(self.root / ".git" / "labmake" / "state", ignore_errors=True)
        for name in self.world.known:
            self.world.known[name], self.world.fuzzy[name] = {}, set()
        return "the state folder is removed"


EDITS = {
    "source": 30,
    "revert": 8,
    "rule": 10,
    "code": 6,
    "rename": 4,
    "grow": 3,
    "drop": 4,
    "missing": 1,
    "format": 3,
    "touch": 4,
    "delete": 6,
    "output": 5,
    "overwrite": 3,
    "foreign": 3,
    "clean": 4,
    "copy": 5,
    "forget": 1,
}
"""Kinds of edits, with how often each is drawn."""


# The machinery -----------------------------------------------------------------------------------------------------


def put(path: Path, data: bytes, rng: random.Random | None) -> None:
    """Write a file unless it has this content: in place or as a new one; at equal size at times with its old mtime."""
    old = path.read_bytes() if path.exists() else None
    if old == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    same_time = rng is not None and old is not None and len(old) == len(data) and not data.startswith(EDITED)
    status = path.stat() if old is not None else None
    if rng is not None and rng.random() < 0.5:
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(data)
        beside.replace(path)
    else:
        path.write_bytes(data)
    if same_time and status is not None:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def start(words: Sequence[str], folder: Path, printed: Path) -> tuple[int, Path]:
    """Start a labmake command in a forked child, which has all of labmake loaded: its process id, what it prints."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid, printed
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(printed, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.environ["PYTHONHASHSEED"] = "0"
        sys.argv = ["labmake", *words]
        from labmake.cli import entry

        try:
            entry.main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 98
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_the_end(root: Path) -> None:
    """Wait until no worker and no step of a killed build is left. Raises Mismatch if some do not end."""
    end = time.monotonic() + PATIENCE
    while left := [process for process in psutil.process_iter() if _belongs(process, str(root))]:
        if time.monotonic() > end:
            raise Mismatch(f"processes are left {PATIENCE:.0f} s after kill -9: {left}")
        time.sleep(0.01)


def _belongs(process: psutil.Process, root: str) -> bool:
    try:
        words = [process.cwd(), *process.cmdline()]
    except psutil.Error:
        return False
    return process.pid != os.getpid() and any(word.startswith(root + os.sep) for word in words)


def _differences(there: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    lines = []
    for name in sorted({*there, *wanted}):
        if there.get(name) != wanted.get(name):
            lines.append(f"  {name}: there {there.get(name)!r}, expected {wanted.get(name)!r}")
    return "\n".join(lines)


def run_history(seed: int, killed: bool, base: Path, steps: Sequence[int] | None = None) -> tuple[str, History]:
    """Run one history in a new folder below `base`; returns "" or what went wrong, and the history."""
    folder = Path(tempfile.mkdtemp(prefix=f"oracle-{seed}-", dir=base))
    history = History(seed, killed, folder)
    length = random.Random(f"{seed} length").randrange(4, 8)
    try:
        for number in range(length) if steps is None else steps:
            history.step(number)
        history.end()
    except Mismatch as wrong:
        return str(wrong), history
    except Exception:
        return f"the oracle itself failed\n{traceback.format_exc()}", history
    shutil.rmtree(folder)
    return "", history


def shrink(seed: int, base: Path, length: int) -> list[int]:
    """The steps of a history that fails, without those that it fails without."""
    kept = list(range(length))
    for number in list(kept):
        fewer = [other for other in kept if other != number]
        with tempfile.TemporaryDirectory(dir=base) as folder:
            wrong, _ = run_history(seed, False, Path(folder), fewer)
        if wrong:
            kept = fewer
    return kept


def report(seed: int, wrong: str, history: History, base: Path, steps: Sequence[int] | None) -> str:
    """A failed history: its seed, all that was done, the rules, what is wrong, and where it lies."""
    again = f"python tests/oracle.py --histories 1 --seed {seed}{' --killed 1' if history.killed else ''}"
    if steps is None and not history.killed:
        shrunk = shrink(seed, base, random.Random(f"{seed} length").randrange(4, 8))
        second, shorter = run_history(seed, False, base, shrunk)
        if second:
            again += f" --steps {','.join(map(str, shrunk)) or 'none'}"
            shutil.rmtree(history.folder)
            wrong, history = second, shorter
    script = (history.root / "scripts" / history.current / "script.py").read_text()
    story = "\n".join(f"  {line}" for line in history.story)
    return (
        f"seed {seed}: {again}\n{'=' * 80}\n{script}\n{'-' * 80}\nsources: {dict(history.pipeline.sources)}\n"
        f"{'-' * 80}\n{story}\n{'-' * 80}\n{wrong}\nit lies in {history.folder}\n{'=' * 80}"
    )


def _one(task: tuple[int, bool, Path, list[int] | None]) -> tuple[str, int, int, int]:
    seed, killed, base, steps = task
    wrong, history = run_history(seed, killed, base, steps)
    text = report(seed, wrong, history, base, steps) if wrong else ""
    return text, history.builds, history.ran, history.kills


def main(arguments: Sequence[str] | None = None) -> int:
    """Run histories; the exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(description="Random pipelines, random edits, kill -9: is every build right?")
    parser.add_argument("--histories", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first history; the next ones follow")
    parser.add_argument("--killed", type=float, default=0.2, help="the share of histories with kill -9")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="histories at once")
    parser.add_argument("--steps", help="only these steps of the history, such as 0,2,5")
    parser.add_argument("--keep", type=Path, help="the folder in which failed histories are left")
    parser.add_argument("--stop", type=int, default=5, help="failures after which it is enough")
    words = parser.parse_args(arguments)
    base = words.keep or Path(tempfile.mkdtemp(prefix="labmake-oracle-"))
    base.mkdir(parents=True, exist_ok=True)
    steps = None if words.steps is None else [int(n) for n in words.steps.split(",") if n.isdigit()]
    tasks = [
        (seed, random.Random(f"{seed} killed").random() < words.killed, base, steps)
        for seed in range(words.seed, words.seed + words.histories)
    ]
    import labmake.cli.building
    import labmake.cli.main
    import labmake.cli.tidying  # noqa: F401  (loaded once, for all forked children)

    failed, totals = 0, Counter[str]()
    with multiprocessing.get_context("fork").Pool(words.jobs) as pool:
        for text, builds, ran, kills in pool.imap_unordered(_one, tasks):
            totals.update(histories=1, builds=builds, steps=ran, kills=kills)
            if text:
                failed += 1
                print(text, flush=True)
            if failed >= words.stop:
                pool.terminate()
                break
    told = ", ".join(f"{count} {word}" for word, count in totals.items())
    print(f"{told}, {failed} failed", flush=True)
    if not failed and words.keep is None:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
