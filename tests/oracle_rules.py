"""The oracle's rules as data: how each is written in a script, and what it means, told without labmake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Folder = dict[str, bytes]
Data = bytes | Folder
"""What a target holds: the bytes of a file, or those of a folder's files by name."""

MOST = 4
"""Elements that a step makes at most: pipelines stay small."""


class StepFails(Exception):
    """The step of a rule fails, as it does when an input of a strict one has the word FAIL."""


@dataclass(frozen=True)
class One:
    """A path, or a slice."""

    path: str


@dataclass(frozen=True)
class Many:
    """A list of paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The files that match a pattern in a folder target."""

    pattern: str


@dataclass(frozen=True)
class Each:
    """One input per combination of values; `over` has a wildcard with a file's path, literal values, or a Found."""

    pattern: str
    over: tuple[tuple[str, str | tuple[str, ...] | Found], ...]
    tolerant: bool = False


Spec = One | Many | Found | Each


@dataclass(frozen=True)
class Rule:
    """A rule or plan. Inputs are called i0, i1, …; `tag` is a parameter, `salt` stands in the command or code itself.

    `style`: sh, tool (a shell script of the project), py (a file of its own), own (a function in script.py).
    `plan` names the way in which a plan decides, by what `reads` names.
    """

    outputs: tuple[str, ...]
    inputs: tuple[Spec, ...]
    op: str = "join"
    tag: str = "t0"
    salt: str = "s0"
    strict: bool = False
    style: str = "sh"
    plan: str = ""
    reads: tuple[str, ...] = ()
    default: bool = True

    @property
    def name(self) -> str:
        """An identifier that no other rule has."""
        return re.sub(r"\W+", "_", self.outputs[0]).strip("_")

    @property
    def wildcards(self) -> list[str]:
        return list(dict.fromkeys(re.findall(r"\{(\w+)", self.outputs[0])))

    @property
    def code(self) -> str:
        """The project path of the code file that this rule has for itself, "" for none."""
        return f"src/{self.name}.py" if self.style == "py" else ""


# How it is written -------------------------------------------------------------------------------------------------

WORDS = (
    r"""cat {ins} | tr -s " " "\n" | """
    r"""awk '/^[a-z][a-z0-9]*$/ && !seen[$0]++ && n < 4 {print; n++}'"""
)

COMMANDS = {
    "join": "(echo {tag} SALT WILD; cat {ins}) > {out}",
    "tool": "bash src/tool.sh {tag} SALT WILD -- {ins} > {out}",
    "tree": "(echo {tag} SALT WILD; find {i0} -type f | LC_ALL=C sort | xargs cat /dev/null) > {out}",
    "head": ": SALT; cat {ins} | sed -n 1p > {out}",
    "count": ": SALT; cat {ins} | awk 'END {print NR}' > {out}",
    "sorted": ": SALT; cat {ins} | LC_ALL=C sort -u > {out}",
    "numbers": ': SALT; cat {ins} | awk \'NR == 1 {n = $1 + 0} END {printf "["; for (i = 1; i <= n && i <= 4; i++) '
    'printf "%s%d", (i > 1 ? "," : ""), i; print "]"}\' > {out}',
    "words": f": SALT; {WORDS} | "
    """awk 'BEGIN {printf "["} {printf "%s\\"%s\\"", (NR > 1 ? "," : ""), $0} END {print "]"}' > {out}""",
    "records": f": SALT; {WORDS} | "
    """awk 'BEGIN {printf "{"} {printf "%s\\"%s\\":{\\"n\\":%d}", (NR > 1 ? "," : ""), $0, length($0)} """
    """END {print "}"}' > {out}""",
    "objects": f": SALT; {WORDS} | "
    """awk 'BEGIN {printf "["} {printf "%s{\\"word\\":\\"%s\\"}", (NR > 1 ? "," : ""), $0} END {print "]"}' > {out}""",
    "table": f": SALT; {WORDS} | "
    """awk 'BEGIN {print "word,n"} {print $0 "," length($0)}' > {out}""",
    "folder": f": SALT; mkdir -p {{out}}; for word in $({WORDS}); do echo $word {{tag}} > {{out}}/$word.txt; done",
    "halves": ": SALT; cat {ins} | awk 'NR % 2' > {out1}; cat {ins} | awk 'NR % 2 == 0' > {out2}",
}
"""The shell command of each operation; SALT, WILD and {ins} are filled in for each rule."""

TOOL = """# {comment}
echo {version} $1 $2 $3 $4 | sed 's/ *--.*//'
while [ "$1" != "--" ]; do shift; done
shift
cat "$@"
"""

HELPER = '''"""{comment}"""

MARK = "{version}"


def join(log, out, parts, header, strict):
    with open(log, "a") as file:
        file.write(f"{{out}}\\n")
    texts = [part.read_bytes() for part in parts]
    if strict and any(b"FAIL" in text for text in texts):
        raise SystemExit("broken")
    out.write_bytes((" ".join([MARK, *header]) + "\\n").encode() + b"".join(texts))


def flat(*inputs):
    parts = []
    for one in inputs:
        one = list(one.values()) if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else [one]
        parts += [path for path in one if path is not None]
    return parts
'''

HEADER = """from labmake import each, find, listdir, plan, py, read_json, read_text, rule, sh, step
import helper
"""


def command(rule: Rule, inputs: Sequence[Spec], log: str) -> str:
    """The shell command of a rule; its first word in the log tells that the step has run."""
    first = "{out}" if len(rule.outputs) == 1 else "{out1}"
    names = " ".join(["/dev/null", *(f"{{i{number}}}" for number in range(len(inputs)))])
    check = f"if grep -rq FAIL {names}; then echo broken; exit 1; fi; " if rule.strict else ""
    text = COMMANDS["tool" if rule.style == "tool" else rule.op]
    text = text.replace("SALT", rule.salt).replace("{ins}", names)
    text = text.replace("WILD", " ".join(f"{{{name}}}" for name in rule.wildcards))
    return f'echo "{first}" >> {log}; {check}{text}'


def spec_text(spec: Spec) -> str:
    """An input as a script writes it."""
    if isinstance(spec, One):
        return repr(spec.path)
    if isinstance(spec, Many):
        return repr(list(spec.paths))
    if isinstance(spec, Found):
        return f"find({spec.pattern!r})"
    over = ", ".join(f"{n}={spec_text(v) if isinstance(v, Found) else _plain(v)}" for n, v in spec.over)
    return f"each({spec.pattern!r}, {over}{', failed=None' if spec.tolerant else ''})"


def _plain(values: object) -> str:
    return repr(list(values)) if isinstance(values, tuple) else repr(values)


def recipe_text(rule: Rule, inputs: Sequence[Spec], log: str) -> str:
    """What stands behind run=."""
    if rule.style == "py":
        return f'py("{rule.code}:make")'
    return f"sh({command(rule, inputs, log)!r})"


def function_text(rule: Rule, name: str, log: str) -> str:
    """The Python function of a rule that joins its inputs."""
    names = [f"i{number}" for number in range(len(rule.inputs))]
    header = ", ".join(["tag", repr(rule.salt), *rule.wildcards])
    return (
        f"def {name}({', '.join([*names, 'tag', *rule.wildcards, 'out'])}):\n"
        f"    helper.join({log!r}, out, helper.flat({', '.join(names)}), [{header}], {rule.strict})\n"
    )


def rule_text(rule: Rule, log: str) -> str:
    """A rule as its script has it."""
    outputs = ", ".join(repr(output) for output in rule.outputs)
    default = "" if rule.default else ", default=False"
    if rule.plan:
        return f"@plan({outputs}{default})\n{PLANS[rule.plan].text(rule, log)}"
    inputs = "".join(f", i{number}={spec_text(spec)}" for number, spec in enumerate(rule.inputs))
    head = f'{outputs}{inputs}, parameters={{"tag": {rule.tag!r}}}'
    if rule.style == "own":
        return f"@rule({head}{default})\n{function_text(rule, rule.name, log)}"
    return f"rule({head}, run={recipe_text(rule, rule.inputs, log)}{default})\n"


def code_text(rule: Rule, log: str, comment: str) -> str:
    """The file of a rule of style py."""
    return f'"""{comment}"""\n\nimport helper\n\n\n{function_text(rule, "make", log)}'


# What it means -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The shared code: versions change results, comments do not (the tool's do, since bash reads all of its bytes)."""

    tool: str = "tool0"
    tool_comment: str = "one"
    helper: str = "helper0"
    comment: str = "one"


def meaning(rule: Rule, code: Code, tag: str, wild: Mapping[str, str], parts: Sequence[Data]) -> list[Data]:
    """What a rule's step writes, output by output. Raises StepFails."""
    texts: list[bytes] = []
    for part in parts:
        texts += [part[name] for name in sorted(part)] if isinstance(part, dict) else [part]
    whole = b"".join(texts)
    if rule.strict and b"FAIL" in whole:
        raise StepFails
    if rule.style in ("py", "own", "tool") or rule.op in ("join", "tree"):
        mark = {"py": [code.helper], "own": [code.helper], "tool": [code.tool]}.get(rule.style, [])
        return [" ".join([*mark, tag, rule.salt, *wild.values()]).encode() + b"\n" + whole]
    lines = whole.decode().splitlines()
    return OPERATIONS[rule.op](lines, tag)


def words_of(lines: Sequence[str]) -> list[str]:
    """The first distinct words of a text."""
    words = [w for line in lines for w in line.split(" ") if re.fullmatch("[a-z][a-z0-9]*", w)]
    return list(dict.fromkeys(words))[:MOST]


def _json(value: object) -> list[Data]:
    return [json.dumps(value, separators=(",", ":")).encode() + b"\n"]


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _number(lines: Sequence[str]) -> int:
    found = re.match(r"\s*(\d+)", lines[0]) if lines else None
    return min(int(found[1]), MOST) if found else 0


OPERATIONS: dict[str, Callable[[list[str], str], list[Data]]] = {
    "head": lambda lines, tag: [_lines(lines[:1])],
    "count": lambda lines, tag: [f"{len(lines)}\n".encode()],
    "sorted": lambda lines, tag: [_lines(sorted(set(lines)))],
    "numbers": lambda lines, tag: _json(list(range(1, _number(lines) + 1))),
    "words": lambda lines, tag: _json(words_of(lines)),
    "records": lambda lines, tag: _json({word: {"n": len(word)} for word in words_of(lines)}),
    "objects": lambda lines, tag: _json([{"word": word} for word in words_of(lines)]),
    "table": lambda lines, tag: [_lines(["word,n", *(f"{word},{len(word)}" for word in words_of(lines))])],
    "folder": lambda lines, tag: [{f"{word}.txt": f"{word} {tag}\n".encode() for word in words_of(lines)}],
    "halves": lambda lines, tag: [_lines(lines[::2]), _lines(lines[1::2])],
}


def elements(path: str, data: bytes) -> dict[str, bytes]:
    """The slices of a JSON or CSV file by key, in its order."""
    text = data.decode()
    if path.endswith(".csv"):
        head, *rows = text.splitlines()
        return {row.split(",")[0]: f"{head}\n{row}\n".encode() for row in rows}
    value = json.loads(text)
    if isinstance(value, dict):
        pairs = list(value.items())
    elif any(isinstance(element, dict) for element in value):
        pairs = [(str(number), element) for number, element in enumerate(value)]
    else:
        pairs = [(e if isinstance(e, str) else json.dumps(e), e) for e in value]
    return {key: json.dumps(e, sort_keys=True, separators=(",", ":")).encode() + b"\n" for key, e in pairs}


# Plans -------------------------------------------------------------------------------------------------------------

Read = Callable[[Sequence[str], bool], list[bytes | None]]
"""Reads targets together; None for one that failed, if that is tolerated. `listdir folder` gives names by line."""


@dataclass(frozen=True)
class Plan:
    """A way to decide: its Python text, and what it decides (inputs and tag) as the oracle sees it."""

    text: Callable[[Rule, str], str]
    decide: Callable[[Rule, Mapping[str, str], Read], tuple[tuple[Spec, ...], str]]


def _returns(rule: Rule, inputs: str, tag: str, count: int, log: str) -> str:
    run = recipe_text(rule, [One("")] * count, log)
    return f'    return step({inputs}, parameters={{"tag": {tag}}}, run={run})\n'


def _choose_text(rule: Rule, log: str) -> str:
    first, second = (spec_text(spec) for spec in rule.inputs)
    return (
        f"def {rule.name}({', '.join(rule.wildcards)}):\n    word = read_text({rule.reads[0]!r}).split()[:1]\n"
        + f'    path = {first} if word < ["m"] else {second}\n'
        + _returns(rule, "i0=path", repr(rule.tag), 1, log)
    )


def _choose(rule: Rule, wild: Mapping[str, str], read: Read) -> tuple[tuple[Spec, ...], str]:
    (text,) = read(rule.reads[:1], False)
    assert text is not None
    return (rule.inputs[0 if text.decode().split()[:1] < ["m"] else 1],), rule.tag


def _some_text(rule: Rule, log: str) -> str:
    return (
        f"def {rule.name}():\n    keys = [str(key) for key in read_json({rule.reads[0]!r})][:2]\n"
        + f"    paths = [{rule.reads[1]!r}.replace('KEY', key) for key in keys]\n"
        + _returns(rule, "i0=paths", repr(rule.tag), 1, log)
    )


def _some(rule: Rule, wild: Mapping[str, str], read: Read) -> tuple[tuple[Spec, ...], str]:
    (text,) = read(rule.reads[:1], False)
    assert text is not None
    keys = [str(key) for key in json.loads(text)][:2]
    return (Many(tuple(rule.reads[1].replace("KEY", key) for key in keys)),), rule.tag


def _search_text(rule: Rule, log: str) -> str:
    return (
        f"def {rule.name}(n):\n"
        + f"    past = read_text([{rule.reads[0]!r}.replace('KEY', str(k)) for k in range(int(n))], failed=None)\n"
        + "    tag = f'trial{sum(len(one) for one in past if one is not None) % 3}'\n"
        + _returns(rule, f"i0={spec_text(rule.inputs[0])}", "tag", 1, log)
    )


def _search(rule: Rule, wild: Mapping[str, str], read: Read) -> tuple[tuple[Spec, ...], str]:
    past = read([rule.reads[0].replace("KEY", str(k)) for k in range(int(wild["n"]))], True)
    return rule.inputs[:1], f"trial{sum(len(one) for one in past if one is not None) % 3}"


def _tolerant_text(rule: Rule, log: str) -> str:
    return (
        f"def {rule.name}():\n    text = read_text({rule.reads[0]!r}, failed=None)\n"
        + "    tag = 'none' if text is None else f'lines{len(text.splitlines()) % 2}'\n"
        + _returns(rule, f"i0={spec_text(rule.inputs[0])}", "tag", 1, log)
    )


def _tolerant(rule: Rule, wild: Mapping[str, str], read: Read) -> tuple[tuple[Spec, ...], str]:
    (text,) = read(rule.reads[:1], True)
    return rule.inputs[:1], "none" if text is None else f"lines{len(text.decode().splitlines()) % 2}"


def _listing_text(rule: Rule, log: str) -> str:
    folder = rule.reads[0]
    return f"def {rule.name}():\n    names = listdir({folder!r})\n" + _returns(
        rule, f"i0=[{folder!r} + name for name in names[:2]]", repr(rule.tag), 1, log
    )


def _listing(rule: Rule, wild: Mapping[str, str], read: Read) -> tuple[tuple[Spec, ...], str]:
    (text,) = read([f"listdir {rule.reads[0]}"], False)
    assert text is not None
    return (Many(tuple(rule.reads[0] + name for name in text.decode().splitlines()[:2])),), rule.tag


PLANS = {
    "choose": Plan(_choose_text, _choose),
    "some": Plan(_some_text, _some),
    "search": Plan(_search_text, _search),
    "tolerant": Plan(_tolerant_text, _tolerant),
    "listing": Plan(_listing_text, _listing),
}
