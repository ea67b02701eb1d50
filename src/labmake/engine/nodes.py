"""A node's way to up to date: fact, plan, trace, run. The first that succeeds ends it.

    1. the fact is fresh: same rule, every dependency unchanged since, outputs' stats unchanged
    2. the plan, replayed, gives the same action
    3. the store has a trace for it: outputs restored, not recomputed
    4. run

Each node is a generator: it yields the keys it waits for (and gets their results), or a Run (and gets the worker's
answer), and returns its own result. The scheduler knows nothing of what a node does between.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from labmake.engine import inputs as asking
from labmake.engine import outputs as places
from labmake.engine.actions import bind, compose
from labmake.engine.batches import check_batch
from labmake.engine.failures import may_pass, step_error
from labmake.engine.inputs import Group, NotAnswered
from labmake.engine.jobs import check_holes, job, request
from labmake.engine.placing import Place
from labmake.engine.plan import AfterRun, Answer, Context, Failed, ReadFailed, Result, Unknown, replay
from labmake.engine.questions import code_closure, content, environment_of, installed_key
from labmake.engine.rulebook import Match
from labmake.engine.services import Options, Services
from labmake.engine.temps import damaged, gone
from labmake.errors import LabmakeError
from labmake.executors.resources import Request
from labmake.frozen import frozen
from labmake.layout import Places, short
from labmake.model import Action, Digest, Fact, Key, Recipe, Step, Trace, canonical
from labmake.store.digest import FileChanged

TRIES = 3
"""How often a step is queued again because a source changed while it ran, before that is an error."""


@frozen
class Run:
    """A request to the scheduler: have a worker run this job."""

    job: dict[str, Any]
    request: Request
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """The step's own, for who judges what it makes; not told to a worker."""


@frozen
class Again:
    """The scheduler's answer to a second node with an action that has just run: look for its trace."""


@frozen
class Remake:
    """A request to the scheduler: have the content of these temporary nodes made again; their results are sent."""

    nodes: tuple[str, ...]


@frozen
class Made:
    """A node's targets with their digests, how they came to be (fresh, restored, ran), and the fact."""

    outputs: Mapping[str, Digest]
    how: str
    fact: Fact


@frozen
class WouldRun:
    """What `build -n` found for a node: it would run (or be restored), or that is unknown until something has run."""

    how: str
    why: str


@frozen
class Decided:
    """An action with what its plan asked to get there."""

    action: Action
    groups: tuple[Group, ...]
    options: Mapping[str, Any]
    snapshot: Digest
    """Of the list of the code files' places and digests: the code as it was, for `labmake why`."""
    names: tuple[str, ...] | None
    """The distributions in its environment; None if others that it imports do not count."""


Asking = Generator[Sequence[Key] | Run | Remake | Place, Any, Any]


def visit(services: Services, options: Options, match: Match, fact: Fact | None, content: bool = False) -> Asking:
    """Bring a node up to date; returns Made, Failed, Unknown or WouldRun. Of a temporary node its digests are enough,
    unless its `content` is wanted."""
    return (yield from answered(match, _visit(services, options, match, fact, content)))


def prepared(services: Services, match: Match) -> Asking:
    """What would run for a node once what it needs is made: a Run for a person, not for a worker; Failed or Unknown."""
    return (yield from answered(match, _prepared(services, match)))


def _prepared(services: Services, match: Match) -> Asking:
    for _ in range(TRIES):
        decided: Decided = yield from decide(services, match)
        if (yield from _content_is_there(services, decided)):
            order = {**job(services, match, decided.action, decided.options, False, decided.names), "anew": False}
            services.actions[match.node] = decided.action
            return Run(order, request(decided.options), "", decided.options)
    name = short(match.node, match.experiment)
    raise LabmakeError(f"a temporary input of {name} comes out differently each time", [("tries", TRIES)])


Look = Callable[[Services, Sequence[Group]], tuple[str, ...]]


def _content_is_there(
    services: Services, decided: Decided, missing: Look = gone
) -> Generator[Remake, Sequence[Result], bool]:
    """Have the content of inputs made again that is `missing`; False if it then is another one than was asked for."""
    absent = missing(services, decided.groups)
    if not absent:
        return True
    for result in (yield Remake(absent)):
        if isinstance(result, Failed):
            raise NotAnswered(result)
    return not missing(services, decided.groups)


def answered(match: Match, asking_on: Asking) -> Asking:
    """The result of a node's generator; of one that a failed or unknown answer ended, that answer."""
    try:
        return (yield from asking_on)
    except NotAnswered as missing:
        if isinstance(missing.result, Failed):
            asking.needed_by(missing.result.error, short(match.node, match.experiment), match.rule.where)
        return missing.result
    except ReadFailed as read:
        asking.needed_by(read.failed.error, short(match.node, match.experiment), match.rule.where)
        return read.failed
    except AfterRun as after:
        return after.unknown


def _visit(services: Services, options: Options, match: Match, fact: Fact | None, content: bool) -> Asking:
    forced = match.node in options.force
    reason = "forced" if forced else "never made here" if fact is None else ""
    if fact is not None and fact.rule != match.rule.digest:
        reason = reason or f"its rule changed ({match.rule.where})"
    if fact is not None and not reason:
        changed = yield from _changed(fact)
        if not changed:
            made = yield from _still_there(services, options, fact, content)
            if made is not None:
                return made
            reason = "it is temporary, and was removed" if content and is_absent(fact) else "its outputs are gone"
        reason = reason or changed
    for attempt in range(TRIES):
        decided: Decided = yield from decide(services, match)
        services.actions[match.node] = decided.action
        anew = forced and not attempt
        result = yield from _from_store_or_run(services, options, match, fact, decided, reason, anew, content)
        if result is not None:
            return result
    raise LabmakeError(
        f"a source of {short(match.node, match.experiment)} changes while its step runs",
        [("tries", TRIES)],
        ["build again when nothing writes to it"],
        match.rule.where,
    )


def _changed(fact: Fact) -> Generator[Sequence[Key], Sequence[Result], str]:
    """The first dependency of a fact that is not as it was, in words; "" if all are. Asked group by group, in order."""
    for group in fact.groups:
        results = yield [key for key, _ in group]
        for (key, digest), result in zip(group, results, strict=True):
            if isinstance(result, Unknown):
                raise NotAnswered(result)
            if isinstance(result, Failed):
                return f"{key} cannot be made"
            if result.digest != digest:
                return f"{describe(key)} changed"
    return ""


def describe(key: Key) -> str:
    """A key as a person calls it."""
    if not key.startswith("?"):
        return key
    word, _, rest = key[1:].partition(" ")
    if word == "code":
        kind, what, function, *_ = json.loads(rest)
        return "code of its command" if kind == "sh" else f"code of {what}{':' + function if function else ''}"
    if word == "installed":
        return " or ".join(json.loads(rest))
    names = {
        "environment": "the environment",
        "keys": f"the keys of {rest}",
        "env": f"variable {rest}",
        "try": rest,
        "list": f"the listing of {rest}",
        "find": f"find({rest})",
        "glob": f"glob({rest})",
    }
    return names[word]


def is_absent(fact: Fact) -> bool:
    """Whether the targets were removed, since they are temporary."""
    return any(placed is None for _, placed in fact.outputs.values())


def _still_there(services: Services, options: Options, fact: Fact, content: bool) -> Asking:
    """A fact whose dependencies are unchanged: fresh, or restored where outputs are missing; None if the store has not
    got them. What is temporary and was removed is missing only if its `content` is wanted."""
    wanted = {path: placed[0] for path, placed in fact.outputs.items()}
    if content and not is_absent(fact) and not places.taken_in(services, fact):
        return None
    missing = list(wanted) if content and is_absent(fact) else places.touched(services, fact)
    if not missing:
        return Made(wanted, "fresh", fact)
    if options.dry:
        for path in missing:
            places.protect(services, path, wanted[path], fact, False)
        there = all(services.blobs.has(wanted[path]) for path in missing)
        return WouldRun("restore", "its outputs are gone") if there else None
    again = {path: wanted[path] for path in missing}
    placed = yield from places.restored(services, again, fact, options.discard_edits)
    if placed is None:
        return None
    services.reporter.restored(fact.node)
    return Made(wanted, "restored", replace(fact, outputs={**fact.outputs, **placed}))


def decide(services: Services, match: Match) -> Asking:
    """The action of a node: its plan replayed until it is decided, its inputs, code and environment asked for."""
    groups: list[Group] = []
    step = match.rule.step
    where = match.rule.where
    if step is None:
        step = yield from _plan(services, match, groups)
    try:
        shapes = yield from asking.shapes(step, match.values, match.rule.home, groups)
        recipe, params = bind(step, match.binding)
        batched = "batch" in step.options
        check_holes(recipe, (*shapes, *params, *match.binding, *match.rule.outputs, "out", "scratch"), batched)
        if batched and match.rule.step is None:
            check_batch(step, recipe, match.rule.outputs, match.binding)
        code = code_key(step, recipe, match)
        around = environment_key(services, step, code, match)
        extra = [code, around] if around else [code]
        services.undecided.discard(match.node)
        keys = list(dict.fromkeys([*(item.question for shape in shapes.values() for item in shape.items), *extra]))
        answers = dict(zip(keys, (yield from asking.ask(keys, groups)), strict=True))
        closure = code_closure(services, code[6:])
        for file in closure.files:
            if not services.blobs.has(file.digest):
                services.blobs.put_copy(services.absolute(file.path), file.digest)
        places_of = Places(match.experiment)
        if recipe.kind in ("function", "python", "script"):
            recipe_file = services.code.find_recipe_file(recipe.text, match.rule.home)
            recipe = replace(recipe, text=places_of.place(recipe_file))
        action = compose(
            recipe=recipe,
            params=params,
            binding=match.binding,
            shapes=shapes,
            answers=answers,
            outputs=match.outputs,
            code=tuple((f.path, f.digest, f.identity) for f in closure.files),
            environment=answers[around].digest if around else "none",
            places=places_of,
            keep=services.keep,
            wrap=step.options.get("wrap", ""),
            asked=code[6:],
        )
    except FileChanged as changed:
        raise LabmakeError(f"a file changed while it was read: {changed}", [], ["build again"], where) from None
    except LabmakeError as error:
        error.where = error.where or where
        raise
    names = environment_of(services, around[13:]).names if around else None
    return Decided(action, tuple(groups), step.options, _snapshot(services, action), names)


def _snapshot(services: Services, action: Action) -> Digest:
    """The list of the code files as they are, kept as a blob."""
    if action.code not in services.snapshots:
        text = "".join(f"{canonical(list(one))}\n" for one in action.code)
        services.snapshots[action.code] = services.keep(text.encode())
    return services.snapshots[action.code]


def _plan(services: Services, match: Match, groups: list[Group]) -> Asking:
    context = Context(match.rule.home, lambda _, answer: content(services, answer), services.known)
    function = match.rule.plan
    assert function is not None
    decided, asked = yield from replay(function, match.values, match.rule.where, context)
    file = match.rule.where.file
    if file.endswith(".py"):
        own = f"?code {canonical(['plan', file, '', match.rule.home, [], ''])}"
        yield from asking.ask([own], groups)
    for keys, results in asked:
        pairs = [(key, r.digest if isinstance(r, Answer) else "failed") for key, r in zip(keys, results, strict=True)]
        groups.append(tuple(pairs))
    step: Step = decided
    return step


def code_key(step: Step, recipe: Recipe, match: Match) -> Key:
    """The question for the code of a step with its recipe as bound: a JSON list of kind, file or command, function,
    experiment, extra patterns, interpreter, and "pickled" if labmake may unpickle an input for a function."""
    extra = list(step.options.get("code", ()))
    asked = [recipe.kind, recipe.text, recipe.function, match.rule.home, extra, recipe.interpreter]
    pickled = recipe.kind == "function" and any(".pkl" in str(spec) for spec in step.inputs.values())
    return f"?code {canonical([*asked, *(['pickled'] * pickled)])}"


def environment_key(services: Services, step: Step, code: Key, match: Match) -> Key:
    """The question for the environment of a step whose code `code` asks for; "" if none counts. Raises RuleError."""
    wanted = step.options.get("environment")
    if wanted is None:
        return f"?environment {code[6:]}"
    if isinstance(wanted, str):
        return "" if wanted == "none" else "?environment all"
    files = [services.code.find_file(file, match.rule.home, f"environment=[{file!r}]") for file in wanted]
    places_of = Places(match.experiment)
    return f"?environment files {canonical({places_of.place(file): file for file in files})}"


def _from_store_or_run(
    services: Services,
    options: Options,
    match: Match,
    fact: Fact | None,
    decided: Decided,
    reason: str,
    forced: bool,
    content: bool,
) -> Asking:
    """Restore an action's outputs, or run it; None if it has to be decided again because a source changed."""
    action, tried, mended = decided.action, 0, False
    supersedes = forced or decided.options.get("cache") is False
    while True:
        before = services.ran.get(action.digest)  # by another node of the same action
        # An action that is not seen yet is looked for again under its lease, if others have added something since.
        looked = services.blobs.generation
        counts = services.environments.counts
        trace = None if supersedes and before is None else services.blobs.trace(action.digest, options.dry, counts)
        if trace is not None:
            made = yield from _restore(services, options, match, fact, decided, trace)
            if made is None and match.rule.options.get("temp") and not content:
                made = _without_content(services, match, decided, trace)
            if made is not None:
                return made
        there = yield from _content_is_there(services, decided)
        if not there and not options.dry:
            return None
        for path in match.outputs.values():
            places.protect(services, path, None, fact, options.discard_edits and not options.dry)
        if options.dry:
            return WouldRun("run", reason or "its action changed")
        for path in match.outputs.values():
            places.make_way(services, path, fact)
        granted = options.settings.over(decided.options, match)
        wanted = request(granted)
        # Who forces a step wants it from the beginning, but its second attempt goes on from the first one's checkpoint.
        about = {"seconds": wanted.seconds, "looked": looked, "anew": forced and not tried}
        order = {**job(services, match, action, decided.options, supersedes, decided.names), **about}
        if before is not None and not before["ok"]:
            raise step_error(services, match, action, order, before)
        answer = yield Run(order, wanted, reason or "its action changed")
        if isinstance(answer, Again):
            continue
        if answer["ok"]:
            services.ran[action.digest] = {"ok": True}
            return _record(services, options, match, decided, answer)
        if answer["why"] == "changed":
            services.sources_changed([one.origin for one in action.inputs if one.origin])
            return None
        if answer["why"] == "disk" and not mended:  # perhaps an input's blob was damaged, which reading it shows
            mended = True
            located = [services.blobs.locate(one.digest) for one in action.inputs if not one.origin]
            if not (yield from _content_is_there(services, decided, damaged)):
                return None
            if located != [services.blobs.locate(one.digest) for one in action.inputs if not one.origin]:
                continue
        tried += 1
        passing = may_pass(answer)
        if passing and tried <= granted.get("retries", 0):
            name = short(match.node, match.experiment)
            services.reporter.note(f"again     {name}: attempt {tried} failed, {passing}")
            continue
        services.ran[action.digest] = answer
        error = step_error(services, match, action, order, answer)
        if tried > 1:
            error.facts.append(("attempts", tried))
        raise error


def _restore(
    services: Services, options: Options, match: Match, fact: Fact | None, decided: Decided, trace: Trace
) -> Asking:
    wanted = {path: trace.outputs[name] for name, path in match.outputs.items()}
    if not all(services.blobs.has(digest) for digest in wanted.values()):
        return None
    if options.dry:
        for path, digest in wanted.items():
            places.protect(services, path, digest, fact, False)
        return WouldRun("restore", "made before")
    there = places.lying(services, wanted, fact)
    rest = {path: digest for path, digest in wanted.items() if path not in there}
    placed = yield from places.restored(services, rest, fact, options.discard_edits)
    if placed is None:
        return None
    placed = {path: there.get(path) or placed[path] for path in wanted}
    how = "fresh" if fact is not None and all(fact.outputs.get(p) == v for p, v in placed.items()) else "restored"
    if how == "restored":
        services.reporter.restored(match.node)
    return Made(wanted, how, _fact(match, decided, placed, trace.loaded))


def _without_content(services: Services, match: Match, decided: Decided, trace: Trace) -> Made | None:
    """A temporary node by its trace alone, if nothing lies in its place."""
    if any(places.mode_of(services.absolute(path).rstrip("/")) for path in match.outputs.values()):
        return None
    absent: dict[str, places.Placed] = {path: (trace.outputs[name], None) for name, path in match.outputs.items()}
    wanted = {path: digest for path, (digest, _) in absent.items()}
    return Made(wanted, "fresh", _fact(match, decided, absent, trace.loaded))


def _record(services: Services, options: Options, match: Match, decided: Decided, answer: dict[str, Any]) -> Made:
    """The fact of a step that ran. A target that somebody wrote meanwhile was not placed: that is an edit."""
    placed: dict[str, places.Placed] = {}
    for name, path in match.outputs.items():
        digest, stats = answer["outputs"][name], answer["placed"].get(decided.action.outputs[name])
        if stats is None:
            places.protect(services, path, digest, None, options.discard_edits)
            placed[path] = digest, places.put(services, path, digest)
        else:
            known = {k: tuple(v) for k, v in stats.items()} if isinstance(stats, dict) else tuple(stats)
            placed[path] = digest, known
    outputs = {path: digest for path, (digest, _) in placed.items()}
    return Made(outputs, "ran", _fact(match, decided, placed, answer["loaded"]))


def _fact(match: Match, decided: Decided, placed: Mapping[str, places.Placed], loaded: Mapping[str, str]) -> Fact:
    groups = (*decided.groups, (installed_key(loaded),)) if loaded else decided.groups
    return Fact(match.node, match.rule.digest, groups, decided.action.digest, dict(placed), decided.snapshot)


_FACT = json.JSONEncoder(separators=(",", ":")).encode


def fact_text(fact: Fact) -> str:
    """A fact as the state keeps it: a checksum, since SQLite has none and a damaged fact must not be believed; JSON."""
    text = _FACT([fact.node, fact.rule, fact.groups, fact.action, fact.outputs, fact.snapshot])
    return f"{zlib.crc32(text.encode()):08x}{text}"


def parse_fact(text: str) -> Fact | None:
    """The fact that fact_text wrote; None if it is not one."""
    try:
        if zlib.crc32(text[8:].encode()) != int(text[:8], 16):
            return None
        node, rule, groups, action, outputs, snapshot = json.loads(text[8:])
        return Fact(
            node,
            rule,
            tuple(tuple((key, digest) for key, digest in group) for group in groups),
            action,
            {path: (digest, _stats(stat)) for path, (digest, stat) in outputs.items()},
            snapshot,
        )
    except (ValueError, TypeError):
        return None


def _stats(value: Any) -> Any:
    if value is None:
        return None
    return {name: tuple(stat) for name, stat in value.items()} if isinstance(value, dict) else tuple(value)
