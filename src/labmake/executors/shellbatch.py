"""A batch of a shell command: its items share one step folder and one run, told by a table that `{batch}` names.

If the command fails, or an output is missing, any output may be half written, so none is believed but those of items
that the command itself has named in LABMAKE_DONE; the rest is tried again in halves until what fails is alone.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labmake.errors import LabmakeError
from labmake.executors.launch import DONE, missing_output
from labmake.executors.process import Abandoned, Ended
from labmake.executors.stepfolder import Box
from labmake.executors.wire import Message
from labmake.executors.worker import DROPPED, disk, expected, told
from labmake.store.digest import FileChanged

if TYPE_CHECKING:
    from labmake.executors.worker import Worker


def run_together(worker: Worker, items: Sequence[Message], is_stopped: Callable[[], bool]) -> Iterator[Message]:
    """Run the items of a batch; an answer to each. After `is_stopped`, no further command is started."""
    todo = deque(apart(items))
    begun = False
    while todo:
        group = todo.popleft()
        if begun and is_stopped():
            yield from ({"id": job["id"], **DROPPED} for job in group)
            continue
        begun = True
        if len(group) == 1:
            yield {"id": group[0]["id"], **worker.run(group[0])}
            continue
        answers, rest = _attempt(worker, group)
        yield from answers
        half = (len(rest) + 1) // 2
        todo.extendleft(part for part in (rest[half:], rest[:half]) if part)


@dataclass
class _Places:
    """The places that a group's items have in their common folder."""

    inputs: dict[str, str] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)
    """The folders above outputs."""

    def takes(self, job: Message) -> bool:
        """Whether an item fits: no place has two contents, and no output lies where something else is."""
        if any(self.inputs.get(place, digest) != digest for place, digest, *_ in job["inputs"]):
            return False
        inputs = [place for place, *_ in job["inputs"]]
        outputs = [place.rstrip("/") for place in job["outputs"].values()]
        if any(one in self.outputs or one in self.below or one in self.inputs for one in outputs):
            return False
        above = {folder for place in (*outputs, *inputs) for folder in _above(place)}
        return self.outputs.isdisjoint(inputs) and self.outputs.isdisjoint(above)

    def add(self, job: Message) -> None:
        self.inputs.update((place, digest) for place, digest, *_ in job["inputs"])
        outputs = {place.rstrip("/") for place in job["outputs"].values()}
        self.outputs |= outputs
        self.below |= {folder for place in outputs for folder in _above(place)}


def apart(items: Sequence[Message]) -> list[list[Message]]:
    """The items in groups that can share a folder; one group, but for different experiments' results of one name."""
    groups: list[tuple[list[Message], _Places]] = []
    for job in items:
        found = next((one for one in groups if one[1].takes(job)), None)
        if found is None:
            found = [], _Places()
            groups.append(found)
        group, places = found
        group.append(job)
        places.add(job)
    return [group for group, _ in groups]


def _above(place: str) -> Iterator[str]:
    while place := os.path.dirname(place):
        yield place


def _attempt(worker: Worker, group: list[Message]) -> tuple[list[Message], list[Message]]:
    """Run the command once for a group: the answers that this gives, and the items that have to be tried again."""
    whole = _merged(group)
    try:
        worker.prepare()
        box = worker.folders.open(whole["code"], whole["inputs"], whole["outputs"].values())
    except (FileChanged, LabmakeError):  # of one of them, which is then alone
        return [], group
    except OSError as error:
        return [{"id": job["id"], **disk(error)} for job in group], []
    try:
        ended = worker.process(whole, box, True)
    except Abandoned:
        _keep(worker, _finished(worker, group, box), box, Ended(-9, 0.0, 0, False))
        raise
    except OSError as error:
        worker.folders.discard(box)
        return [{"id": job["id"], **disk(error)} for job in group], []
    worker.redact(whole["secrets"])
    good = (
        ended.status == 0 and not ended.timed_out and not any(missing_output(job, box.path, box.code) for job in group)
    )
    done = group if good else _finished(worker, group, box)
    answers = _keep(worker, done, box, ended)
    left = worker.folders.close(box, expected(whole))
    for answer in [answer for answer in answers if answer["ok"]][:1]:
        answer.update(left=left if good else [], learned=worker.blobs.take_learned())
    finished = {job["id"] for job in done}
    return answers, [job for job in group if job["id"] not in finished]


def _merged(group: list[Message]) -> Message:
    """The job of a group: everything of its items in one folder, and time for all of them."""
    first = group[0]
    inputs = {one[0]: one for job in group for one in job["inputs"]}
    return {
        **first,
        "inputs": list(inputs.values()),
        "outputs": {f"{n}.{name}": place for n, job in enumerate(group) for name, place in job["outputs"].items()},
        "targets": {place: target for job in group for place, target in job["targets"].items()},
        "env": {name: value for name, value in first["env"].items() if name != "LABMAKE_SEED"},
        "rows": [job["batch"]["row"] for job in group],
        "all": group,
        "seconds": first["seconds"] * len(group),
    }


def _finished(worker: Worker, group: list[Message], box: Box) -> list[Message]:
    """The items whose first output the command has named in LABMAKE_DONE, and whose outputs are all there."""
    try:
        with open(f"{worker.scratch}/{DONE}", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError:
        return []
    # The last line may be half written.
    named = {os.path.normpath(line) for line in text.split("\n")[:-1] if line}
    return [
        job
        for job in group
        if os.path.normpath(next(iter(job["outputs"].values()))) in named
        and not missing_output(job, box.path, box.code)
    ]


def _keep(worker: Worker, done: list[Message], box: Box, ended: Ended) -> list[Message]:
    """Keep what was made; an answer to each. The time of one is its share."""
    share = Ended(ended.status, ended.seconds / max(len(done), 1), ended.peak, ended.timed_out)
    said = worker.log_so_far()
    answers = []
    for job in done:
        answer: Message
        try:
            answer = worker.keep(job, box, share, said)
        except FileChanged as error:
            answer = {"ok": False, "why": "changed", "facts": {"file": str(error)}}
        except LabmakeError as error:
            answer = told(error)
        except OSError as error:
            answer = disk(error)
        answers.append({"id": job["id"], **answer})
    return answers
