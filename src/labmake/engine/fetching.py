"""Sources in the web: fetched once by a worker, pinned, and from then on found in the store by the pin alone.

While hashes.txt has a pin and the data of this hash are at hand (in the store, or in their place), the network is not
asked, so a build works offline and gives the same tomorrow. Without a pin, with `build -f`, and when the data are
nowhere here, they are fetched; data that are not what is pinned are never placed.

A pin is 64 hex digits without a size, so the store cannot be asked for it. `datum` makes an action of it ("the bytes
with this hash"), whose trace tells the digest: other experiments and worktrees find the data by it, at any address.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from typing import Any

from labmake.engine import outputs as places
from labmake.engine import pins
from labmake.engine.jobs import failed_folder, request, seed
from labmake.engine.nodes import Again, Made, Run, WouldRun
from labmake.engine.rulebook import Match
from labmake.engine.services import Options, Services
from labmake.errors import LabmakeError, StepFailed, StoreError
from labmake.layout import Places, short
from labmake.model import Digest, Fact, Key, Trace, canonical, digest_of
from labmake.store.digest import digest_file, hex_of

Asking = Generator[Sequence[Key] | Run, Any, Any]


def is_web(address: str) -> bool:
    """Whether a source's address is one that is fetched."""
    return address.lower().startswith(("http://", "https://"))


def visit_fetched(services: Services, options: Options, match: Match, fact: Fact | None) -> Asking:
    """Bring a source's target up to date: by its pin if the data are at hand, else by fetching them."""
    target, forced = match.node, match.node in options.force
    fetch = digest_of(f"labmake fetch 1\naddress {canonical(match.rule.address)}\n".encode())
    while True:
        pin = pins.pinned(services, match.experiment).get(target)
        digest = _at_hand(services, target, fact, pin) if pin is not None and not forced else None
        if digest is not None:
            return _restore(services, options, match, fact, digest)
        places.protect(services, target, None, fact, options.discard_edits and not options.dry)
        if options.dry:
            return WouldRun("run", f"fetched from {match.rule.address}")
        answer = services.ran.get(fetch) or (yield _run(services, match, fetch, forced, pin))
        if isinstance(answer, Again):
            continue  # another source of this build, or another build, has fetched it
        services.ran[fetch] = answer
        if not answer["ok"]:
            raise _fetch_error(services, match, answer)
        return _record(services, options, match, fact, answer)


def datum(pin: str) -> str:
    """The text of the action that stands for the data with this SHA-256."""
    return f"labmake datum 1\nsha256 {pin}\n"


def _held(services: Services, pin: str) -> Digest | None:
    """The digest of pinned data that the store holds."""
    trace = services.blobs.trace(digest_of(datum(pin).encode()))
    digest = trace.outputs["out"] if trace is not None else None
    return digest if digest is not None and services.blobs.has(digest) else None


def _at_hand(services: Services, target: str, fact: Fact | None, pin: str) -> Digest | None:
    """The digest of pinned data that lie in their place or in the store; None if they have to be fetched."""
    known = fact.outputs.get(target) if fact is not None and not places.touched(services, fact) else None
    if known is not None and hex_of(known[0]) == pin:
        return known[0]
    held = _held(services, pin)
    if held is not None:
        return held
    place = services.absolute(target)
    lies = places.stat_of(place) is not None
    digest = digest_file(place) if lies else None
    if digest is None or hex_of(digest) != pin:
        return None
    services.blobs.put_copy(place, digest)  # the store was lost, the data were not
    _remember(services, digest, 0.0, 0, b"found in its place\n")
    return digest


def _remember(services: Services, digest: Digest, seconds: float, peak: int, log: bytes) -> None:
    """Record what the data with this hash are: the trace of the action that stands for them."""
    action = services.keep(datum(hex_of(digest)).encode())
    trace = Trace(action, {"out": digest}, seconds, peak, services.keep(log), services.clock.now())
    services.blobs.add_trace(trace)


def _restore(services: Services, options: Options, match: Match, fact: Fact | None, digest: Digest) -> Made | WouldRun:
    target = match.node
    if fact is not None and fact.outputs.get(target, ("",))[0] == digest and not places.touched(services, fact):
        pins.pin(services, options, match, {target: hex_of(digest)})
        return Made({target: digest}, "fresh", fact)
    if options.dry:
        places.protect(services, target, digest, fact, False)
        return WouldRun("restore", "fetched before")
    services.reporter.restored(target)
    return _placed(services, options, match, fact, digest, "restored")


def _record(services: Services, options: Options, match: Match, fact: Fact | None, answer: dict[str, Any]) -> Made:
    """What was fetched, compared with its pin, placed and pinned. Raises DataChanged."""
    digest = answer["outputs"]["out"]
    pins.check(services, match, {match.node: hex_of(digest)})
    _remember(services, digest, answer["seconds"], answer["peak"], services.blobs.read(answer["log"]))
    return _placed(services, options, match, fact, digest, "ran")


def _placed(services: Services, options: Options, match: Match, fact: Fact | None, digest: Digest, how: str) -> Made:
    target = match.node
    placed = places.restore(services, {target: digest}, fact, options.discard_edits)
    assert placed is not None
    pins.pin(services, options, match, {target: hex_of(digest)})
    action = digest_of(datum(hex_of(digest)).encode())
    return Made({target: digest}, how, Fact(target, match.rule.digest, (), action, placed))


def _run(services: Services, match: Match, action: Digest, forced: bool, pin: str | None) -> Run:
    """The job that fetches an address into the store; the coordinator places it, when it is what is pinned."""
    from labmake.executors.fetch import TRIES

    place = Places(match.experiment).place(match.node)
    address, rules = match.rule.address, match.rule.options
    wanted = request(rules)
    job = {
        "id": match.node,
        "action": action,
        "text": b"",
        "looked": -1,
        "supersede": True,
        "checkpoint": "",
        "batch": None,
        "static": None,
        "locks": {},
        "code": [],
        "inputs": [],
        "stats": [],
        "outputs": {"out": place},
        "targets": {},
        "command": [sys.executable, "-P", "-m", "labmake.executors.fetch"],
        "step": {"address": address, "tries": rules.get("retries", TRIES - 1) + 1, "outputs": {"out": place}},
        "lists": {},
        "env": {"LABMAKE_SEED": seed(place)},
        "secrets": [],
        "failed": failed_folder(services, match.node),
        "aside": "",
        "seconds": wanted.seconds,
    }
    why = "forced" if forced else "not at hand" if pin else "not pinned yet"
    return Run(job, wanted, f"{why}: fetched from {address}")


def _fetch_error(services: Services, match: Match, answer: dict[str, Any]) -> LabmakeError:
    """The error of a fetch that did not succeed: the last line of its log is the reason."""
    from labmake.executors.fetch import ADVICE, DISK

    name = short(match.node, match.experiment)
    facts: list[tuple[str, object]] = [("address", match.rule.address)]
    details = answer["facts"]
    if answer["why"] == "exit" and details["status"] in ADVICE:
        kind: type[LabmakeError] = StoreError if details["status"] == DISK else StepFailed
        with open(answer["kept"] + "/log", encoding="utf-8", errors="replace") as log:
            *before, reason = log.read().strip().split("\n")
        facts.append(("reason", reason))
        if before:
            facts.append(("tries", len(before) + 1))
        return kind(f"{name} could not be fetched", facts, ADVICE[details["status"]], match.rule.where)
    if answer["why"] == "time":
        facts.append(("after", f"{request(match.rule.options).seconds:g} s"))
        more = ["give it more time (time= of the source)"]
        return StepFailed(f"{name} was not fetched within its time", facts, more, match.rule.where)
    kind = StoreError if answer["why"] == "disk" else StepFailed
    facts += list(details.items())
    todo = answer.get("todo") or [f"`labmake logs {name}` shows what was printed"]
    return kind(answer.get("what", f"{name} could not be fetched"), facts, todo, match.rule.where)
