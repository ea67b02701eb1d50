"""The software around a step, as a text that changes when a result may."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

import pytest

from labmake.environment.distributions import environment_text, installed, root_locks
from labmake.model import digest_of


def site(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).mkdir(parents=True)
    return str(folder)


def test_names_are_normalised_and_versions_taken_from_folder_names(tmp_path: Path) -> None:
    path = site(
        tmp_path, "Foo_Bar-1.0.dist-info", "zope.event-2.0-py3.11.egg-info", "dev.egg-info", "numpy", "six-1.dist"
    )
    assert installed([path]) == (("dev", ""), ("foo-bar", "1.0"), ("zope-event", "2.0"))


def test_the_first_folder_on_the_path_wins_and_labmake_does_not_count(tmp_path: Path) -> None:
    first = site(tmp_path / "a", "numpy-2.0.dist-info", "labmake-0.1.dist-info")
    second = site(tmp_path / "b", "numpy-1.0.dist-info", "pandas-3.0.dist-info")
    assert installed([first, str(tmp_path / "absent.zip"), second, first]) == (("numpy", "2.0"), ("pandas", "3.0"))


def test_two_versions_in_one_folder_are_both_told(tmp_path: Path) -> None:
    assert installed([site(tmp_path, "a-2.dist-info", "a-1.dist-info")]) == (("a", "1,2"),)


def test_this_interpreters_distributions_are_those_that_importlib_knows() -> None:
    known = {re.sub(r"[-_.]+", "-", d.name).lower() for d in importlib.metadata.distributions()} - {"labmake"}
    assert {name for name, _ in installed()} >= known
    assert dict(installed())["numpy"] == importlib.metadata.version("numpy")


def test_the_text_names_python_platform_distributions_and_locks() -> None:
    lines = environment_text({"flake.lock": "abc-3"}, tools=()).splitlines()
    assert re.fullmatch(r"python \w+ 3\.\d+", lines[0])
    assert re.fullmatch(r"platform \w+-\w+", lines[1])
    assert f"numpy {importlib.metadata.version('numpy')}" in lines
    assert lines[-1] == "flake.lock abc-3"


def test_an_interpreter_on_path_counts_by_its_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "real" / "Rscript-4"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "Rscript").symlink_to(tool)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    before = environment_text({})
    assert f"Rscript {os.path.realpath(tool)} 10 " in before
    assert "julia" not in before
    tool.write_text("#!/bin/bash\n")
    assert environment_text({}) != before
    assert "Rscript" not in environment_text({}, tools=())


def test_only_lock_files_that_exist_count(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text("{}")

    def digest(path: str) -> str:
        return digest_of((tmp_path / path).read_bytes())

    assert root_locks(digest, ["flake.lock", "poetry.lock"]) == {"flake.lock": digest_of(b"{}")}
