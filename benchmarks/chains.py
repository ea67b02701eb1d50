"""Chains of two steps: the first build, builds when nothing changed, and one after one input changed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from measure import Phases
from tools import Project, build, check, lay

PHASES = ("cold", "null first", "null", "one changed")
"""`null first` is the first build after the cold one, which may have to look at everything; `null` those after it."""


def make(chains: int) -> Mapping[str, str]:
    text = f"""SHELL := /bin/bash
all: $(foreach i,$(shell seq {chains}),out/b/$(i).txt)
out/a/%.txt: in/%.txt
	@cat $< > $@
out/b/%.txt: out/a/%.txt
	@cat $< > $@
.SECONDARY:
.PHONY: all
"""
    return {"Makefile": text, "out/a/.keep": "", "out/b/.keep": ""}


def ninja(chains: int) -> Mapping[str, str]:
    edges = [
        f"build out/a/{i}.txt: cat in/{i}.txt\nbuild out/b/{i}.txt: cat out/a/{i}.txt\n" for i in range(1, chains + 1)
    ]
    return {"build.ninja": "rule cat\n  command = cat $in > $out\n" + "".join(edges)}


def labmake(chains: int) -> Mapping[str, str]:
    """Two rules with a wildcard, and a group that asks for all."""
    text = f"""from labmake import group, rule, sh

rule("a/{{i}}.txt", x="/in/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
rule("b/{{i}}.txt", x="a/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
group("all", *[f"b/{{i}}.txt" for i in range(1, {chains} + 1)])
"""
    return {"rules.py": text}


def labmake_loop(chains: int) -> Mapping[str, str]:
    """2 × N rules without wildcards, declared in a loop; built without being asked for."""
    text = f"""from labmake import rule, sh

for i in range(1, {chains} + 1):
    rule(f"a/{{i}}.txt", x=f"/in/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
    rule(f"b/{{i}}.txt", x=f"a/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
"""
    return {"rules.py": text}


def doit(chains: int) -> Mapping[str, str]:
    text = f"""DOIT_CONFIG = {{"default_tasks": ["b"]}}


def task_a():
    for i in range(1, {chains} + 1):
        source, target = f"in/{{i}}.txt", f"out/a/{{i}}.txt"
        yield {{"name": i, "file_dep": [source], "targets": [target], "actions": [f"cat {{source}} > {{target}}"]}}


def task_b():
    for i in range(1, {chains} + 1):
        source, target = f"out/a/{{i}}.txt", f"out/b/{{i}}.txt"
        yield {{"name": i, "file_dep": [source], "targets": [target], "actions": [f"cat {{source}} > {{target}}"]}}
"""
    return {"dodo.py": text, "out/a/.keep": "", "out/b/.keep": ""}


def snakemake(chains: int) -> Mapping[str, str]:
    text = f"""rule all:
    input: expand("out/b/{{i}}.txt", i=range(1, {chains} + 1))
rule a:
    input: "in/{{i}}.txt"
    output: "out/a/{{i}}.txt"
    shell: "cat {{input}} > {{output}}"
rule b:
    input: "out/a/{{i}}.txt"
    output: "out/b/{{i}}.txt"
    shell: "cat {{input}} > {{output}}"
"""
    return {"Snakefile": text}


def dvc(chains: int) -> Mapping[str, str]:
    def stage(name: str, before: str) -> str:
        return f"""  {name}:
    foreach: {list(range(1, chains + 1))}
    do:
      cmd: cat {before}/${{item}}.txt > out/{name}/${{item}}.txt
      deps:
        - {before}/${{item}}.txt
      outs:
        - out/{name}/${{item}}.txt
"""

    return {"dvc.yaml": "stages:\n" + stage("a", "in") + stage("b", "out/a"), "out/a/.keep": "", "out/b/.keep": ""}


def redun(chains: int) -> Mapping[str, str]:
    text = f"""import subprocess

from redun import File, task

redun_namespace = "chains"


@task()
def cat(source: File, target: str) -> File:
    subprocess.run(f"cat {{source.path}} > {{target}}", shell=True, check=True)
    return File(target)


@task(cache=False)
def main() -> list[File]:
    between = [cat(File(f"in/{{i}}.txt"), f"out/a/{{i}}.txt") for i in range(1, {chains} + 1)]
    return [cat(file, f"out/b/{{i}}.txt") for i, file in enumerate(between, 1)]
"""
    return {"workflow.py": text, "out/a/.keep": "", "out/b/.keep": ""}


WILDCARDS = "labmake (wildcards)"
LOOP = "labmake (2 × N rules)"

PROJECTS = (
    Project("make", "make", make),
    Project("ninja", "ninja", ninja),
    Project(WILDCARDS, "labmake", labmake, ("all",), "generated/assets"),
    Project(LOOP, "labmake", labmake_loop, (), "generated/assets"),
    Project("doit", "doit", doit),
    Project("snakemake", "snakemake", snakemake),
    Project("dvc", "dvc", dvc),
    Project("redun", "redun", redun, ("workflow.py", "main")),
)


def inputs(chains: int) -> dict[str, str]:
    return {f"in/{i}.txt": f"input {i}\n" for i in range(1, chains + 1)}


def expected(chains: int) -> dict[str, str]:
    """What every tool has to make of the inputs: path below its folder of results → text."""
    return {f"{step}/{i}.txt": f"input {i}\n" for step in "ab" for i in range(1, chains + 1)}


def cycle(project: Project, base: Path, chains: int, jobs: int) -> Phases:
    """One run in a fresh folder: every phase, and after each the results are looked at."""
    folder = base / project.tool
    wanted = expected(chains)
    lay(project, folder, chains, jobs, inputs(chains))
    phases: Phases = {}
    for phase in PHASES:
        if phase == "one changed":
            (folder / "in/1.txt").write_text("changed\n")
            wanted |= {"a/1.txt": "changed\n", "b/1.txt": "changed\n"}
        phases[phase] = build(project, folder, jobs)
        check(project, folder, wanted, phase)
    shutil.rmtree(folder)
    return phases
