"""A failing disk: a small rich pipeline is built while one call fails, or all from one on; then the disk is sound.

python tests/faults.py --all [--jobs N] [--story first|second] [--errno ENOSPC]    every call, every errno
python tests/faults.py --story second --at worker:17:ENOSPC:lasting                one of them again

The failing build must end with an error in three parts or well, never hang, leave only whole files, and lose nothing
that it reported. The next build must end well: the tree is that of a clean build, and so are all traces of the store.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults_disk import Call, Ended, at, never, run
from oracle_running import Mismatch, differences

from labmake.store.live import view

ERRNOS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EMFILE", "EROFS")}

EXPERIMENT = "2026-01-02-Story"

SCRIPT = """
from labmake import each, glob, plan, py, read_json, rule, sh, source, step
source("data/raw.csv", "./raw.csv")
rule("data/folds.json", raw="data/raw.csv", run=sh("echo folds >> {log}; sed 's/.*/[&]/' {raw} > {out}"))
rule("data/fits/{fold}.txt", row="data/folds.json#{fold}",
     run=sh("echo fit{fold} >> {log}; bash src/tool.sh {row} > {out}"))
rule("data/all.txt", fits=each("data/fits/{fold}.txt", fold="data/folds.json"),
     run=sh("echo all >> {log}; cat {fits} > {out}"))
rule("data/a.txt", "data/b.txt", raw="data/raw.csv", run=sh("echo pair >> {log}; cp {raw} {out1}; rev {raw} > {out2}"))
rule("models/m/", raw="data/raw.csv", run=sh("echo model >> {log}; cp {raw} {out}/w; mkdir {out}/sub {out}/empty; "
     "printf tool > {out}/sub/t; chmod +x {out}/sub/t; ln -s sub/t {out}/l; head -c 20000 /dev/zero > {out}/zero"))
rule("data/large.bin", raw="data/raw.csv",
     run=sh("echo large >> {log}; (head -c 1200000 /dev/zero; cat {raw}) > {out}"))
rule("data/size.txt", large="data/large.bin", run=sh("echo size >> {log}; wc -c < {large} > {out}"))
rule("data/found.txt", found=glob("./*.toml"), run=sh("echo found >> {log}; echo {found} > {out}"))
@plan("data/chosen.txt")
def chosen():
    return step(fit=f"data/fits/{read_json('data/folds.json')[-1]}.txt", run=sh("echo chosen >> {log}; cp {fit} {out}"))
"""


@dataclass(frozen=True)
class Story:
    """Files below the experiment's scripts, what is done to results before the build, the files a build must leave."""

    sources: dict[str, str]
    deleted: tuple[str, ...] = ()


FIRST = Story({"raw.csv": "1, 2, 3\n", "one.toml": ""})
SECOND = Story({"raw.csv": "1, 2, 4, 5\n", "one.toml": "", "two.toml": ""}, ("data/found.txt", "models/m/sub/t"))
STORIES = {"first": (None, FIRST), "second": (FIRST, SECOND)}
"""Name of a story → what was built before it on a sound disk, and what is built while the disk fails."""


class Place:
    """A folder with the project, in which one build after another is tried."""

    def __init__(self, home: Path) -> None:
        self.home, self.root = home, home / "project"
        self.log, self.printed, self.kept = home / "log", home / "printed", home / "kept"
        self.generated = self.root / "generated" / EXPERIMENT

    def begin(self, story: str) -> None:
        """The project as it is before the build that fails; what was built before is built once and then copied."""
        shutil.rmtree(self.root, ignore_errors=True)
        before, now = STORIES[story]
        if before is None:
            (self.root / ".git").mkdir(parents=True)
        else:
            if not self.kept.exists():
                self.begin("first")
                self.sound(before)
                self.root.rename(self.kept)
            shutil.copytree(self.kept, self.root, symlinks=True)
        self.write(now)
        self.log.write_text("")

    def write(self, story: Story) -> None:
        scripts = self.root / "scripts" / EXPERIMENT
        for name, text in {**story.sources, "script.py": SCRIPT.replace("{log}", str(self.log))}.items():
            (scripts / name).parent.mkdir(parents=True, exist_ok=True)
            (scripts / name).write_text(text)
        (scripts / "hashes.txt").unlink(missing_ok=True)  # other data are accepted
        (self.root / "src").mkdir(exist_ok=True)
        (self.root / "src" / "tool.sh").write_text("echo fit $(cat $1)\n")
        for name in story.deleted:
            (self.generated / "assets" / name).unlink()

    def build(self, refuse: Callable[[Call, int], int] = never) -> Ended:
        return run(["build", "-j1"], self.root, self.printed, refuse)

    def sound(self, story: Story) -> list[Call]:
        """A build on a sound disk, which must end well; its calls."""
        done = self.build()
        if done.code != 0:
            raise Mismatch(f"a build on a sound disk: exit code {done.code}\n{done.text}")
        self.compare(self.tree(), wanted(story), done.text)
        return done.calls

    def tree(self) -> dict[str, bytes]:
        """All that lies in the experiment's generated folder: files, links and empty folders."""
        found: dict[str, bytes] = {}
        for path in self.generated.rglob("*"):
            name = str(path.relative_to(self.generated)).removeprefix("assets/")
            if path.is_symlink():
                found[name] = b"-> " + str(path.readlink()).encode()
            elif path.is_file():
                found[name] = (b"x " if path.stat().st_mode & 0o100 else b"") + path.read_bytes()
            elif not any(path.iterdir()):
                found[name + "/"] = b""
        return found

    def compare(self, there: dict[str, bytes], right: dict[str, bytes], text: str) -> None:
        if there != right:
            raise Mismatch(f"the files are not those of a clean build\n{_short(there, right)}\n{text}")

    def traces(self) -> dict[str, dict[str, str]]:
        """Every action of the store with its outputs; all of them must be whole."""
        seen = view(self.root / ".git" / "labmake" / "store")
        try:
            return {key: dict(t.outputs) for kind, key in seen.places if kind == "T" for t, _ in seen.traces(key)}
        finally:
            seen.close()


def _short(there: dict[str, bytes], right: dict[str, bytes]) -> str:
    return differences({k: v[:80] for k, v in there.items()}, {k: v[:80] for k, v in right.items()})


def wanted(story: Story) -> dict[str, bytes]:
    """The files that a clean build leaves."""
    raw = story.sources["raw.csv"]
    folds = raw.strip().split(", ")
    fits = {f"data/fits/{fold}.txt": f"fit {fold}\n" for fold in folds}
    tomls = sorted(name for name in story.sources if name.endswith(".toml"))
    large = b"\0" * 1200000 + raw.encode()
    texts = {
        "data/raw.csv": raw,
        "data/folds.json": f"[{raw.strip()}]\n",
        **fits,
        "data/all.txt": "".join(fits.values()),
        "data/a.txt": raw,
        "data/b.txt": raw.strip()[::-1] + "\n",
        "models/m/w": raw,
        "models/m/l": "-> sub/t",
        "models/m/sub/t": "x tool",
        "models/m/zero": "\0" * 20000,
        "models/m/empty/": "",
        "data/size.txt": f"{len(large)}\n",
        "data/found.txt": " ".join(tomls) + "\n",
        "data/chosen.txt": f"fit {folds[-1]}\n",
    }
    return {"data/large.bin": large, **{name: text.encode() for name, text in texts.items()}}


@dataclass(frozen=True)
class Fault:
    """Call `number` of a role gets an errno, once or from there on."""

    story: str
    role: str
    number: int
    errno: str
    lasting: bool

    def __str__(self) -> str:
        lasting = "lasting" if self.lasting else "once"
        return f"--story {self.story} --at {self.role}:{self.number}:{self.errno}:{lasting}"


def faults(story: str, calls: Sequence[Call], names: Sequence[str]) -> Iterator[tuple[Fault, Call]]:
    """Every fault that the calls of a sound build may meet."""
    counts: Counter[str] = Counter()
    for call in calls:
        counts[call.role] += 1
        for name in names:
            if call.may_give(ERRNOS[name]):
                for lasting in (False, True):
                    yield Fault(story, call.role, counts[call.role], name, lasting), call


def kind(fault: Fault, call: Call) -> tuple[str, ...]:
    """What makes a fault like another: who, which call, what sort of file, which errno."""
    path = re.sub(r"[0-9a-f]{8,}|\d+", "#", call.path)
    path = re.sub(r"fits/#|large|raw|folds|found|chosen|size|/[ab]\b|all", "*", path)
    return fault.story, call.role, call.name, path, fault.errno, str(fault.lasting)


def attempt(place: Place, fault: Fault) -> str:
    """Build with a fault, check, build without, check; returns what was refused. Raises Mismatch."""
    _, now = STORIES[fault.story]
    place.begin(fault.story)
    old, right = place.tree(), wanted(now)
    failing = place.build(at(fault.role, fault.number, ERRNOS[fault.errno], fault.lasting))
    ran = Counter(place.log.read_text().split())
    told = f"{fault}\nrefused: {', '.join(map(str, failing.refused[:5]))}\n{failing.text}"
    if failing.code is None:
        raise Mismatch(f"it hangs\n{told}")
    if "Traceback" in failing.text or failing.code not in (0, 1, 2, 5):
        raise Mismatch(f"exit code {failing.code}\n{told}")
    if failing.code and not re.search(r"^error: .*\n(?:[ ].*\n|\n)*?  → .", failing.text, re.MULTILINE):
        raise Mismatch(f"no error in three parts\n{told}")
    there = place.tree()
    # A disk that takes nothing any more does not even remove what was written beside a result, under a hidden name.
    hidden = {p for p in there if fault.lasting and re.search(r"/\.[^/]+\.labmake-\d+$", p)}
    there = {p: data for p, data in there.items() if p not in hidden and not p.endswith("/")}
    if torn := [p for p, data in there.items() if data not in (old.get(p), right.get(p))]:
        raise Mismatch(f"neither old nor new: {torn}\n{told}")
    if failing.code == 0:
        place.compare(place.tree(), right, told)
    reported = _made(failing.text)
    done = place.build()
    told = f"{told}\nthen, on a sound disk:\n{done.text}"
    if done.code != 0 or "Traceback" in done.text:
        raise Mismatch(f"exit code {done.code} on a sound disk\n{told}")
    place.compare(place.tree(), right, told)
    if lost := reported & _made(done.text):
        raise Mismatch(f"made again although it was reported: {sorted(lost)}\n{told}")
    both = Counter(place.log.read_text().split())
    if twice := {name for name, count in both.items() if count > 1 + (ran[name] > 0) or ran[name] > 1}:
        raise Mismatch(f"ran more than once: {twice}\n{told}")
    _sound_store(place, fault.story, told)
    left = list((place.root / ".git" / "labmake" / "steps").glob("*"))
    if left and _made(done.text):  # a build that runs nothing sweeps nothing
        raise Mismatch(f"step folders are left: {left}\n{told}")
    return ", ".join(map(str, failing.refused[:1])) or "nothing"


def _made(text: str) -> set[str]:
    return set(re.findall(r"^made      (.*?)  [\d.]+ s$", text, re.MULTILINE))


def _sound_store(place: Place, story: str, told: str) -> None:
    """Every trace is that of a clean build, and what it names is there."""
    clean = place.home / f"traces-{story}"
    found = place.traces()
    if not clean.exists():
        other = Place(place.home / f"clean-{story}")
        other.home.mkdir(parents=True)
        other.log = place.log  # the steps' texts name it
        other.begin(story)
        other.sound(STORIES[story][1])
        clean.write_text(repr(other.traces()))
        shutil.rmtree(other.home)
    right = eval(clean.read_text())
    if wrong := {action: outputs for action, outputs in found.items() if right.get(action) != outputs}:
        raise Mismatch(f"the store has traces that a clean build does not have: {wrong}\n{told}")


def sound_calls(home: Path, story: str) -> list[Call]:
    """The calls of a story on a sound disk."""
    place = Place(home)
    place.begin(story)
    return place.sound(STORIES[story][1])


def load() -> None:
    """Import all that a build imports, for the forked children."""
    import labmake.cli.building
    import labmake.cli.main
    import labmake.executors.worker  # noqa: F401


def _one(task: tuple[Fault, Path]) -> tuple[Fault, str, str]:
    fault, base = task
    home = base / multiprocessing.current_process().name
    home.mkdir(exist_ok=True)
    try:
        return fault, "", attempt(Place(home), fault)
    except Mismatch as wrong:
        return fault, str(wrong), ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try faults; the exit code is 1 if labmake did wrong under one of them."""
    parser = argparse.ArgumentParser(description="A disk that fails at every call in turn: is every next build right?")
    parser.add_argument("--all", action="store_true", help="every call; otherwise one of each kind")
    parser.add_argument("--story", choices=STORIES, action="append")
    parser.add_argument("--errno", choices=ERRNOS, action="append")
    parser.add_argument("--at", help="one fault: role:number:errno:once or lasting")
    parser.add_argument("--jobs", type=int, default=2, help="builds at once")
    parser.add_argument("--stop", type=int, default=10, help="failures after which it is enough")
    parser.add_argument("--every", type=int, default=1, help="only each Nth")
    words = parser.parse_args(arguments)
    load()
    base = Path(tempfile.mkdtemp(prefix="labmake-faults-"))
    tried: list[Fault] = []
    for story in words.story or STORIES:
        if words.at:
            role, number, name, lasting = words.at.split(":")
            tried.append(Fault(story, role, int(number), name, lasting == "lasting"))
            continue
        seen = set()
        home = base / "count"
        home.mkdir(exist_ok=True)
        for fault, call in faults(story, sound_calls(home, story), words.errno or list(ERRNOS)):
            if words.all or kind(fault, call) not in seen:
                tried.append(fault)
            seen.add(kind(fault, call))
    tried = tried[:: words.every]
    print(f"{len(tried)} faults", flush=True)
    failed = 0
    with multiprocessing.get_context("fork").Pool(words.jobs) as pool:
        for fault, wrong, _ in pool.imap_unordered(_one, [(fault, base) for fault in tried]):
            if wrong:
                failed += 1
                print(f"{'=' * 100}\n{fault}\n{wrong}", flush=True)
            if failed >= words.stop:
                pool.terminate()
                break
    print(f"{len(tried)} faults, {failed} failed", flush=True)
    shutil.rmtree(base, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
