"""Random programs and random edits, really run: if a function gives something else, its identity is another one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from code_programs import Program, edits, outcome, programs, small, write
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from labmake.environment.code_files import CodeReader
from labmake.model import digest_of

MEMO: dict[str, Any] = {}

often = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def seen(program: Program) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """What a program gives, and the identity of its function."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, program)
        reader = CodeReader(root, lambda path: digest_of((root / path).read_bytes()), MEMO, [])
        files = reader.function("src/step.py", "", "run").files
        return outcome(root), tuple((file.path, file.identity) for file in files if file.identity)


@often
@given(st.data())
def test_a_function_that_gives_something_else_has_another_identity(data: st.DataObject) -> None:
    program = data.draw(programs())
    changed = data.draw(edits(program))
    (before, old), (after, new) = seen(program), seen(changed)
    assume(before is not None and after is not None)
    assert before == after or old != new


@often
@given(st.data())
def test_a_function_that_nothing_names_may_be_edited(data: st.DataObject) -> None:
    program = data.draw(programs(dynamic=False))
    module = data.draw(st.sampled_from(sorted(program)))
    place = data.draw(st.integers(0, len(program[module])))
    number = data.draw(small)

    def with_unused(body: str) -> Program:
        statements = list(program[module])
        statements.insert(place, f"def unused():\n    {body}")
        return {**program, module: statements}

    bodies = ("return 1", "import json\n    return json, q", f"LOG.append({number})")
    # A star import or a module that is caught when it fails takes all of a module.
    assume(not any("__getattr__" in text or "except ImportError" in text for body in program.values() for text in body))
    assume(not any("import_module" in text for body in program.values() for text in body))
    # So does a module that is handed on as a value.
    assume(not any(text.startswith("import ") and " as " in text for body in program.values() for text in body))
    assert len({seen(with_unused(body))[1] for body in bodies}) == 1


def test_programs_mostly_run() -> None:
    """The properties say something: most random programs give a result, and most edits change it or not."""
    results: list[tuple[bool, bool]] = []

    @settings(max_examples=120, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        program = data.draw(programs())
        before, after = seen(program)[0], seen(data.draw(edits(program)))[0]
        results.append((before is not None and after is not None, before != after))

    collect()
    ran = [different for both, different in results if both]
    assert len(ran) > len(results) / 5
    assert any(ran) and not all(ran)
