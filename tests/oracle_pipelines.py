"""Random pipelines and random changes of them, for the oracle."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from oracle_model import Pipeline
from oracle_rules import Each, Found, Many, One, Rule, Spec

VOCABULARY = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "owl", "pig", "rat", "yak", "a1", "z22")
LIMIT = 12
"""Rules of a pipeline at most."""


@dataclass
class Draft:
    """A pipeline that is being drawn: its rules, its sources, the texts and key files that others may use."""

    rng: random.Random
    rules: list[Rule] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    keyed: list[str] = field(default_factory=list)
    count: int = 0

    def fresh(self, letter: str) -> str:
        """A name that was not given yet."""
        self.count += 1
        return f"{letter}{self.count}"

    def add(self, *outputs: str, inputs: tuple[Spec, ...], op: str = "join", **words: object) -> Rule:
        """A new rule; style and strictness are drawn unless they are given."""
        rng = self.rng
        joins = op == "join" and len(outputs) == 1 and "plan" not in words
        drawn: dict[str, object] = {
            "style": rng.choices(["sh", "tool", "py", "own"], [12, 3, 1, 1])[0] if joins else "sh",
            "strict": rng.random() < 0.3,
            "tag": f"t{rng.randrange(3)}",
        }
        rule = Rule(outputs, inputs, op, **{**drawn, **words})  # type: ignore[arg-type]
        self.rules.append(rule)
        return rule

    def text(self) -> One:
        """A text that is there already."""
        return One(self.rng.choice(self.texts))

    def result(self, path: str) -> None:
        """Let others use a target."""
        self.texts.append(path)


def text_content(rng: random.Random) -> str:
    """A small text, sometimes one that strict steps fail at."""
    lines = [" ".join(rng.sample(VOCABULARY, rng.randrange(1, 4))) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), "FAIL")
    if rng.random() < 0.5:
        lines[0] = f"{rng.randrange(5)} {lines[0]}"
    return "".join(f"{line}\n" for line in lines)


def keys_content(rng: random.Random, name: str) -> str:
    """A file with elements: a list or object of JSON, or a table."""
    words = rng.sample(VOCABULARY, rng.randrange(5))
    if name.endswith(".csv"):
        return "word,n\n" + "".join(f"{word},{rng.randrange(3)}\n" for word in words)
    if "obj" in name:
        return "{" + ", ".join(f'"{word}": {{"x": {rng.randrange(3)}}}' for word in words) + "}\n"
    if "rec" in name:
        return "[" + ", ".join(f'{{"b": {rng.randrange(3)}, "a": "{word}"}}' for word in words) + "]\n"
    if "mix" in name:
        words += [str(number) for number in rng.sample(range(30), rng.randrange(3))]
        return "[" + ", ".join(f'"{word}"' for word in words) + "]\n"
    if rng.random() < 0.1:
        words.append("FAIL")
    return "[" + ", ".join(f'"{word}"' for word in words) + "]\n"


def content(rng: random.Random, name: str) -> str:
    """A random content for a source file."""
    return text_content(rng) if name.endswith(".txt") else keys_content(rng, name)


def draw(rng: random.Random) -> Pipeline:
    """A random pipeline of 3 to 12 rules."""
    draft = Draft(rng)
    for name in ("./a.txt", "./b.txt", "./c.txt")[: rng.randrange(2, 4)]:
        draft.sources[name] = text_content(rng)
        draft.texts.append(name)
    return grow(draft, rng.randrange(2, 5))


def grow(draft: Draft, count: int) -> Pipeline:
    """The pipeline with some more blocks, and a rule that takes several results together."""
    rng = draft.rng
    for block in rng.choices(BLOCKS, k=count):
        if len(draft.rules) < LIMIT - 1:
            block(draft)
    if not any(rule.outputs[0].startswith("outputs/") for rule in draft.rules):
        made = [path for path in draft.texts if not path.startswith("./")]
        draft.add("outputs/all.txt", inputs=(Many(tuple(made[-4:])),), style="sh", strict=False)
    return Pipeline(tuple(draft.rules), draft.sources)


def resume(rng: random.Random, pipeline: Pipeline, count: int) -> Draft:
    """A draft that goes on from a pipeline; names are counted from `count`."""
    draft = Draft(rng, list(pipeline.rules), dict(pipeline.sources), count=count)
    draft.texts = [name for name in pipeline.sources if name.endswith(".txt")]
    return draft


# Blocks: a few rules that belong together --------------------------------------------------------------------------


def _keys(draft: Draft, kinds: tuple[str, ...] = ("numbers", "words", "records", "objects", "table")) -> str:
    """A file with elements: one that is there, a new source, or a new step's output."""
    rng, chance = draft.rng, draft.rng.random()
    if draft.keyed and chance < 0.3:
        return rng.choice(draft.keyed)
    if chance < 0.6:
        name = f"./{draft.fresh(rng.choice(['list', 'obj', 'rec', 'tab']))}"
        name += ".csv" if "tab" in name else ".json"
        draft.sources[name] = keys_content(rng, name)
    else:
        op = rng.choice(kinds)
        name = f"{draft.fresh('l')}/keys.{'csv' if op == 'table' else 'json'}"
        draft.add(name, inputs=(draft.text(),), op=op)
    draft.keyed.append(name)
    return name


def _collect(draft: Draft, spec: Spec) -> None:
    name = f"{draft.fresh('c')}.txt"
    draft.add(name, inputs=(spec,), op=draft.rng.choice(["join", "join", "count", "sorted", "head"]))
    draft.result(name)


def chain(draft: Draft) -> None:
    """Steps one after another; some drop most of what they read, so what follows is often cut off early."""
    for _ in range(draft.rng.randrange(1, 4)):
        name = f"{draft.fresh('t')}.txt"
        op = draft.rng.choice(["join", "head", "count", "sorted"])
        draft.add(name, inputs=(draft.text(),), op=op, default=draft.rng.random() > 0.15)
        draft.result(name)


def family(draft: Draft) -> None:
    """One rule, as many targets as a file has elements, and a collector."""
    rng, keys, name = draft.rng, _keys(draft), draft.fresh("d")
    inputs: tuple[Spec, ...] = (One(f"{keys}#{{k}}"),)
    if rng.random() < 0.5:
        inputs += (draft.text(),)
    if rng.random() < 0.2:
        draft.add(f"{name}/{{k}}.txt", f"{name}x/{{k}}.txt", inputs=inputs, op="halves")
        _collect(draft, Each(f"{name}x/{{k}}.txt", (("k", keys),)))
    else:
        draft.add(f"{name}/{{k}}.txt", inputs=inputs)
    _collect(draft, Each(f"{name}/{{k}}.txt", (("k", keys),), rng.random() < 0.4))


def nested(draft: Draft) -> None:
    """Each element has its own number of parts, and a collector of its own."""
    keys, name = _keys(draft), draft.fresh("d")
    own = f"{name}/{{k}}/own.json"
    draft.add(own, inputs=(One(f"{keys}#{{k}}"), draft.text()), op=draft.rng.choice(["words", "numbers"]))
    draft.add(f"{name}/{{k}}/m/{{v}}.txt", inputs=(One(f"{own}#{{v}}"),))
    draft.add(f"{name}/{{k}}/all.txt", inputs=(Each(f"{name}/{{k}}/m/{{v}}.txt", (("v", own),)),))
    _collect(draft, Each(f"{name}/{{k}}/all.txt", (("k", keys),), draft.rng.random() < 0.3))


def product(draft: Draft) -> None:
    """A target for each pair of elements of two files."""
    first, second, name = _keys(draft), _keys(draft), draft.fresh("d")
    draft.add(f"{name}/{{k}}/{{v}}.txt", inputs=(One(f"{first}#{{k}}"), One(f"{second}#{{v}}")))
    _collect(draft, Each(f"{name}/{{k}}/{{v}}.txt", (("k", first), ("v", second))))


def folder(draft: Draft) -> None:
    """A folder of files that are not known beforehand, and one of the ways to read it."""
    rng, name, reader = draft.rng, draft.fresh("d"), draft.fresh("p")
    draft.add(f"{name}/", inputs=(draft.text(),), op="folder", strict=False)
    way = rng.choice(["each", "find", "one", "whole", "listing"])
    if way == "each":
        draft.add(f"{reader}/{{k}}.txt", inputs=(One(f"{name}/{{k}}.txt"),))
        _collect(draft, Each(f"{reader}/{{k}}.txt", (("k", Found(f"{name}/{{k}}.txt")),)))
    elif way == "find":
        _collect(draft, Found(f"{name}/{{k}}.txt"))
    elif way == "one":
        draft.add(f"{reader}.txt", inputs=(One(f"{name}/{rng.choice(VOCABULARY)}.txt"),), default=rng.random() < 0.3)
    elif way == "whole":
        draft.add(f"{reader}.txt", inputs=(One(f"{name}/"),), op="tree")
        draft.result(f"{reader}.txt")
    else:
        draft.add(f"{reader}.txt", inputs=(), plan="listing", reads=(f"{name}/",))
        draft.result(f"{reader}.txt")


def halves(draft: Draft) -> None:
    """A step with two outputs, each read by another step."""
    name = draft.fresh("h")
    draft.add(f"{name}/odd.txt", f"{name}/even.txt", inputs=(draft.text(),), op="halves")
    _collect(draft, One(f"{name}/odd.txt"))
    _collect(draft, One(f"{name}/even.txt"))


def choose(draft: Draft) -> None:
    """A plan that reads a word and then takes one of two inputs."""
    name = f"{draft.fresh('p')}.txt"
    read = draft.text().path
    draft.add(name, inputs=(draft.text(), draft.text()), plan="choose", reads=(read,))
    draft.result(name)


def some(draft: Draft) -> None:
    """A plan that takes the first two targets of a family."""
    keys, name, chosen = _keys(draft, ("numbers", "words", "records")), draft.fresh("d"), f"{draft.fresh('p')}.txt"
    if keys.endswith(".csv") or "rec" in keys or _op_of(draft, keys) == "objects":
        return family(draft)
    draft.add(f"{name}/{{k}}.txt", inputs=(One(f"{keys}#{{k}}"), draft.text()))
    draft.add(chosen, inputs=(), plan="some", reads=(keys, f"{name}/KEY.txt"))
    draft.result(chosen)
    return None


def _op_of(draft: Draft, path: str) -> str:
    return next((rule.op for rule in draft.rules if path in rule.outputs), "")


def search(draft: Draft) -> None:
    """An adaptive search: each trial reads the ones before it."""
    name = draft.fresh("d")
    draft.add(f"{name}/{{n:[0-9]+}}.txt", inputs=(draft.text(),), plan="search", reads=(f"{name}/KEY.txt",))
    count = draft.rng.randrange(1, 4)
    _collect(draft, Each(f"{name}/{{n}}.txt", (("n", tuple(str(n) for n in range(count))),), draft.rng.random() < 0.5))


def tolerant(draft: Draft) -> None:
    """A plan that goes on if what it reads failed."""
    name, other = f"{draft.fresh('p')}.txt", f"{draft.fresh('t')}.txt"
    draft.add(other, inputs=(draft.text(),), strict=True)
    draft.add(name, inputs=(draft.text(),), plan="tolerant", reads=(other,))
    draft.result(name)


def regex(draft: Draft) -> None:
    """Two rules that share a folder and tell their targets apart by expressions."""
    name, keys = draft.fresh("d"), f"./{draft.fresh('mix')}.json"
    draft.sources[keys] = keys_content(draft.rng, keys)
    draft.add(f"{name}/{{k:[0-9]+}}.txt", inputs=(One(f"{keys}#{{k}}"),))
    draft.add(f"{name}/{{k:[a-z][a-z0-9]*}}.txt", inputs=(One(f"{keys}#{{k}}"), draft.text()), op="head")
    _collect(draft, Each(f"{name}/{{k}}.txt", (("k", keys),)))


BLOCKS: tuple[Callable[[Draft], None], ...] = (
    *(chain, family, family, nested, product, folder, folder, halves, choose, some, search, tolerant, regex),
)


# Changes of a pipeline ---------------------------------------------------------------------------------------------


def change_rule(rng: random.Random, pipeline: Pipeline) -> tuple[Pipeline, str]:
    """Another parameter, command or strictness of one rule."""
    number = rng.randrange(len(pipeline.rules))
    rule = pipeline.rules[number]
    what = rng.choice(["tag", "salt", "strict", "default"])
    if what == "strict":
        new = replace(rule, strict=not rule.strict)
    elif what == "default":
        new = replace(rule, default=not rule.default or sum(r.default for r in pipeline.rules) < 3)
    else:
        new = replace(rule, **{what: f"{what[0]}{rng.randrange(4)}"})
    rules = (*pipeline.rules[:number], new, *pipeline.rules[number + 1 :])
    return replace(pipeline, rules=rules), f"{what} of {rule.outputs[0]}"


def rename(rng: random.Random, pipeline: Pipeline, new: str) -> tuple[Pipeline, str]:
    """Another name for a rule's target or folder, everywhere."""
    rule = rng.choice(pipeline.rules)
    old = rule.outputs[0].split("/")[0].removesuffix(".txt")
    if old == "outputs":
        return pipeline, "nothing"

    def path(text: str) -> str:
        first, dot, rest = text.partition("/")
        first = new if first == old else f"{new}.txt" if first == f"{old}.txt" else first
        return first + dot + rest

    return replace(pipeline, rules=tuple(_with_paths(rule, path) for rule in pipeline.rules)), f"{old} is called {new}"


def _with_paths(rule: Rule, path: Callable[[str], str]) -> Rule:
    """The rule with every path put through a function."""

    def spec(one: Spec) -> Spec:
        if isinstance(one, One):
            return One(path(one.path))
        if isinstance(one, Many):
            return Many(tuple(path(p) for p in one.paths))
        if isinstance(one, Found):
            return Found(path(one.pattern))
        over = tuple(
            (n, v if isinstance(v, tuple) else spec(v) if isinstance(v, Found) else path(v)) for n, v in one.over
        )
        return Each(path(one.pattern), over, one.tolerant)  # type: ignore[arg-type]

    return replace(
        rule,
        outputs=tuple(path(output) for output in rule.outputs),
        inputs=tuple(spec(one) for one in rule.inputs),
        reads=tuple(path(read) for read in rule.reads),
    )


def reshape(rng: random.Random, pipeline: Pipeline) -> tuple[Pipeline, str]:
    """A rule with two outputs has them in another order, or only the first one from now on."""
    number = next((n for n, rule in enumerate(pipeline.rules) if len(rule.outputs) == 2), None)
    if number is None:
        return pipeline, "nothing"
    rule = pipeline.rules[number]
    first, second = rule.outputs
    rules = list(pipeline.rules)
    if rng.random() < 0.5:
        rules[number] = replace(rule, outputs=(second, first))
        return replace(pipeline, rules=tuple(rules)), f"{second} comes before {first}"
    rules[number] = replace(rule, outputs=(first,), op="head")
    folder, other = second.split("/")[0] + "/", first.split("/")[0] + "/"

    def path(text: str) -> str:
        if folder != other:
            return other + text[len(folder) :] if text.startswith(folder) else text
        return first if text == second else text

    rules = [r if n == number else _with_paths(r, path) for n, r in enumerate(rules)]
    return replace(pipeline, rules=tuple(rules)), f"{second} is not made any more"


def drop(rng: random.Random, pipeline: Pipeline) -> tuple[Pipeline, str]:
    """One rule fewer; what needs it can no longer be made, so the whole end of the pipeline goes at times."""
    if len(pipeline.rules) < 3:
        return pipeline, "nothing"
    last = pipeline.rules[-1]
    used = {path for rule in pipeline.rules for path in _used(rule)}
    free = [rule for rule in pipeline.rules if not any(o in used for o in rule.outputs) and not rule.wildcards]
    gone = rng.choice(free or [last])
    rules = tuple(rule for rule in pipeline.rules if rule is not gone)
    if not any(rule.default and not rule.wildcards for rule in rules):
        return pipeline, "nothing"
    return replace(pipeline, rules=rules), f"no rule for {gone.outputs[0]}"


def _used(rule: Rule) -> list[str]:
    found = list(rule.reads)
    for spec in rule.inputs:
        if isinstance(spec, One):
            found.append(spec.path)
        elif isinstance(spec, Many):
            found += spec.paths
    return found


def in_other_order(name: str, text: str) -> str:
    """The same lines or elements, backwards."""
    if name.endswith(".json"):
        value = json.loads(text)
        return json.dumps(value[::-1] if isinstance(value, list) else dict(reversed(value.items()))) + "\n"
    head, rows = ("", text) if name.endswith(".txt") else ("word,n\n", text.removeprefix("word,n\n"))
    return head + "".join(reversed(rows.splitlines(keepends=True)))


def rewrite(rng: random.Random, sources: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Another content for one source file: drawn anew, one element more or fewer, FAIL in or out, or of equal size."""
    name = rng.choice(sorted(sources))
    old = sources[name]
    way = rng.choice(["anew", "anew", "fail", "size", "more", "order"])
    if way == "fail" and name.endswith(".txt"):
        new = old.replace("FAIL\n", "") or "ant\n" if "FAIL" in old else old + "FAIL\n"
    elif way == "size":
        word, other = rng.sample([w for w in VOCABULARY if len(w) == 3], 2)
        new = old.replace(word, other) if word in old and other not in old else old
    elif way == "order":
        new = in_other_order(name, old)
    elif way == "more" and name.endswith(".txt"):
        new = old + f"{rng.choice(VOCABULARY)}\n"
    else:
        new = content(rng, name)
    return {**sources, name: new}, f"{way} {name}: {new!r}"
