"""One history for the oracle: a project, builds and kills of builds, and the model's verdict after each."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from oracle_edits import EDITS, FIRST, SECOND
from oracle_model import EDITED, Identity, Known, Look, Pipeline, World, after, build, defaults
from oracle_paths import files_of, lies
from oracle_pipelines import draw
from oracle_rules import HEADER, HELPER, TOOL, Code, code_text, rule_text
from oracle_running import Mismatch, differences, end_of, put, start, wait_for_the_end
from oracle_together import Side, build_together

YOUNG = 0.04
"""Seconds after which a file's stat counts."""


class History:
    """One project, and what is done to it, step by step; `story` tells it."""

    def __init__(self, seed: int, kills: bool, together: bool, folder: Path) -> None:
        self.seed, self.killing, self.together, self.folder = seed, kills, together, folder
        self.root = folder / "project"
        self.state = self.root / ".git" / "labmake"
        self.other: Side | None = None
        self.story: list[str] = []
        self.ran = self.kills = self.builds = 0
        rng = random.Random(f"{seed} pipeline")
        (self.root / ".git").mkdir(parents=True)
        self.world = World(str(folder / "log"), Code())
        self.current = FIRST
        self.count = 100
        self.waves = rng.random() < 0.7
        self.jobs = (rng.randrange(1, 5), rng.randrange(1, 5))
        self.add(FIRST, draw(rng))
        self.past: list[tuple[Code, Pipeline]] = []
        Path(self.world.log).touch()

    # The worktree ----------------------------------------------------------------------------------------------

    def add(self, name: str, pipeline: Pipeline) -> None:
        self.world.pipelines[name] = pipeline
        self.world.trees[name], self.world.known[name], self.world.fuzzy[name] = {}, {}, set()
        self.write()

    @property
    def pipeline(self) -> Pipeline:
        return self.world.pipelines[self.current]

    def write(self, rng: random.Random | None = None) -> None:
        """Write what the world says: files whose content differs, in place or anew, at times with their old mtime."""
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

    def lying(self, experiment: str) -> dict[str, bytes]:
        """The files that lie in an experiment's generated folder."""
        base = self.root / "generated" / experiment
        found = {}
        for path in base.rglob("*"):
            name = str(path.relative_to(base)).removeprefix("assets/")
            if path.is_file():
                found[name] = path.read_bytes()
        return found

    # Steps of a history ----------------------------------------------------------------------------------------

    def step(self, number: int) -> None:
        """One random edit (none before the first build) and a build; all is checked."""
        rng = random.Random(f"{self.seed} step {number}")
        if number:
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                self._edit(rng)
        if rng.random() < 0.6:
            time.sleep(YOUNG)  # what was written a moment ago is not trusted, and no snapshot of it is kept
        words: list[str] = ["-j", str(rng.choice(self.jobs))]
        targets: list[str] = []
        if number and rng.random() < 0.2:
            targets = self.targets(rng)
        force = rng.random() < 0.1
        discard = rng.random() < (0.5 if self._has_edits() else 0.05)
        if self.together and rng.random() < 0.7:
            build_together(self, rng)
        elif self.killing and rng.random() < 0.6:
            self.build_and_kill(rng, words, targets, discard)
            if rng.random() < 0.5:
                self._edit(rng)
                targets = []
        experiments = [self.current]
        if len(self.world.pipelines) > 1 and rng.random() < 0.5:
            experiments, targets = [FIRST, SECOND], []
        self.build(experiments, words, targets, force, discard)
        if rng.random() < 0.4:
            self.build(experiments, words, targets, False, False, again=True)

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
        self.build([self.current], words, [], False, True)
        self.build([self.current], words, [], False, False, again=True)

    def tell(self, text: str) -> None:
        self.story.append(text)

    def targets(self, rng: random.Random) -> list[str]:
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

    def command(self, names: Sequence[str], words: Sequence[str], targets: Sequence[str]) -> list[str]:
        if len(names) > 1:
            targets = [self._whole(name, path) for name in names for path in defaults(self.world.pipelines[name])]
        else:
            targets = [self._whole(names[0], path) for path in targets]
        return ["build", *words, "-e", self.current, *targets]

    def build(
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
        command = self.command(names, words, targets)
        looks = {name: build(world, name, targets, force=force, discard=discard) for name in names}
        codes = [code for _, code in looks.values()]
        expected = 1 if 1 in codes else max(codes)
        self.tell(f"labmake {' '.join(command)}   → {expected}")
        self.builds += 1
        code, printed = self.labmake(command)
        if code != expected:
            raise Mismatch(f"exit code {code}, expected {expected}\n{printed}")
        must, may = self.runs([look for look, _ in looks.values()])
        ran = self.noted()
        if again and any(not self._fails(looks, identity) for identity in must):
            raise Mismatch("the model itself wants a second build to run something")
        self._compare_runs(ran, must, may, printed)
        for name, (look, _) in looks.items():
            complete = not targets and len(names) == 1 and expected == 0
            tree, known = after(world, look, complete)
            there = self.lying(name)
            tree |= self.unknown_rest(name, known, there)
            if there != tree:
                raise Mismatch(f"the files are not those of a clean build\n{differences(there, tree)}\n{printed}")
            self.nothing_lost(name, there, printed)
            for node in look.nodes.values():
                if node.outputs is not None:
                    world.done.add(node.identity)
                    world.unsure.pop(node.identity, None)
            world.trees[name], world.known[name] = tree, known
            world.fuzzy[name] -= set(look.nodes)

    def unknown_rest(self, name: str, known: Mapping[str, Known], there: Mapping[str, bytes]) -> dict[str, bytes]:
        """What may lie there still of targets that went: a killed build has placed it, and did not get to record it."""
        world = self.world
        went = {node: one for node, one in world.known[name].items() if node in world.fuzzy[name] - set(known)}
        files = {file for one in went.values() for path, data in one.outputs.items() for file in files_of(path, data)}
        return {file: there[file] for file in files & set(there) if there[file] == world.trees[name].get(file)}

    def nothing_lost(self, name: str, there: dict[str, bytes], printed: str) -> None:
        """What a user wrote into the generated folder lies there still, or aside."""
        gone = {t for p, t in self.world.trees[name].items() if t.startswith(EDITED) and there.get(p) != t}
        if gone:
            aside = [path.read_bytes() for path in (self.state / "aside").rglob("*") if path.is_file()]
            lost = gone - set(aside)
            if lost:
                raise Mismatch(f"these edits are lost: {sorted(lost)}\n{printed}")
            twice = [text for text, count in Counter(aside).items() if count > 1 and text.startswith(EDITED)]
            if twice:
                raise Mismatch(f"these edits were set aside twice: {twice}\n{printed}")

    def _fails(self, looks: dict[str, tuple[Look, int]], identity: Identity) -> bool:
        return any(
            n.outputs is None for look, _ in looks.values() for n in look.nodes.values() if n.identity == identity
        )

    def runs(self, looks: Sequence[Look]) -> tuple[dict[Identity, str], dict[Identity, str]]:
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

    def noted(self) -> Counter[str]:
        """The steps that noted that they run since the last call."""
        lines = Path(self.world.log).read_text().splitlines()
        Path(self.world.log).write_text("")
        self.ran += len(lines)
        return Counter(line.rstrip("/") for line in lines)

    def labmake(self, words: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end; its exit code and what it printed."""
        pid, output = start(words, self.root, self.folder / "printed", self.waves)
        status = end_of(pid)
        text = output.read_text(errors="replace")
        if status is None:
            raise Mismatch(f"labmake {' '.join(words)} does not end\n{text}")
        if "Traceback" in text:
            raise Mismatch(f"a traceback\n{text}")
        return os.waitstatus_to_exitcode(status), text

    # Kill -9 ---------------------------------------------------------------------------------------------------

    def build_and_kill(self, rng: random.Random, words: Sequence[str], targets: Sequence[str], discard: bool) -> None:
        """Build, and kill the coordinator at a random moment: after some steps have begun, or after some time."""
        world, name = self.world, self.current
        look, _ = build(world, name, targets, discard=discard)
        must, may = self.runs([look])
        if not (must or may):
            return
        words = [*words, *(["--discard-edits"] if discard else [])]
        command = self.command([name], words, targets)
        after_steps = rng.randrange(len(must) + len(may) + 1)
        delay = rng.random() * rng.choice([0.01, 0.05, 0.3])
        self.tell(f"labmake {' '.join(command)}   killed after {after_steps} steps and {delay * 1000:.0f} ms")
        (self.folder / "killed").touch()
        pid, output = start(command, self.root, self.folder / "killed", self.waves)
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
        ran = self.noted()
        more = ran - Counter([*must.values(), *may.values()])
        if more:
            raise Mismatch(f"ran and need not, in a killed build: {sorted(more.elements())}\n{printed}")
        world.losses[self.builds] = jobs
        for node in look.nodes.values():
            if node.runs and node.outputs is not None and ran[node.name.rstrip("/")]:
                world.unsure.setdefault(node.identity, self.builds)
        before, there = world.trees[name], self.lying(name)
        new, known = after(world, look, complete=False)
        self.nothing_lost(name, there, printed)
        torn = [p for p, text in there.items() if text not in (before.get(p), new.get(p))]
        if torn:
            raise Mismatch(f"after a kill these files are neither old nor new: {torn}\n{printed}")
        for node in look.nodes.values():
            placed = node.outputs is not None and all(lies(there, path, data) for path, data in node.outputs.items())
            if placed:
                world.known[name][node.name] = known[node.name]
                world.known[name] |= {path: one for path, one in known.items() if one.orphan}
            world.fuzzy[name].add(node.name)
        world.trees[name] = there

    # Edits -----------------------------------------------------------------------------------------------------

    def _edit(self, rng: random.Random) -> None:
        """One random change of the project."""
        self.past.append((self.world.code, self.pipeline))
        chosen = rng.choices(list(EDITS), list(EDITS.values()))[0]
        self.tell(f"{chosen.__name__}: {chosen(self, rng)}")
        self.write(rng)

    def set(self, pipeline: Pipeline) -> None:
        self.world.pipelines[self.current] = pipeline
