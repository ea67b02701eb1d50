"""A fan-out whose width is known only when its first step has run, and the step that collects it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from measure import Phases
from tools import Project, build, check, lay

PHASES = ("cold", "null first", "null")

ELEMENTS = "for i in $(seq $(cat {k})); do echo $i > {out}/$i.txt; done"
"""The step that writes the elements, as bash."""


def make(_: int) -> Mapping[str, str]:
    """A make file that is generated, with the names of the elements: make starts again when it has been made."""
    text = """SHELL := /bin/bash
all: out/all.txt
out/elements.mk: in/k.txt
	@mkdir -p out/elements out/each
	@for i in $$(seq $$(cat $<)); do echo $$i > out/elements/$$i.txt; done
	@echo ELEMENTS := $$(seq $$(cat $<)) > $@
include out/elements.mk
out/each/%.txt: out/elements/%.txt
	@cat $< > $@
out/all.txt: $(ELEMENTS:%=out/each/%.txt)
	@cat $^ > $@
.SECONDARY:
.PHONY: all
"""
    return {"Makefile": text}


def labmake_folder(_: int) -> Mapping[str, str]:
    """The elements are the files of a folder target, found when it is there."""
    text = f"""from labmake import each, find, rule, sh

rule("elements/", k="/in/k.txt", run=sh("{ELEMENTS}"))
rule("each/{{i}}.txt", x="elements/{{i}}.txt", run=sh("cat {{x}} > {{out}}"))
rule("all.txt", parts=each("each/{{i}}.txt", i=find("elements/{{i}}.txt")), run=sh("cat {{parts}} > {{out}}"))
"""
    return {"rules.py": text}


def labmake_slices(_: int) -> Mapping[str, str]:
    """The elements are the elements of one JSON file; each step gets a slice of it."""
    text = """from labmake import each, rule, sh

rule("elements.json", k="/in/k.txt", run=sh("{ echo [1; seq 2 $(cat {k}) | sed s/^/,/; echo ]; } > {out}"))
rule("each/{i}.txt", x="elements.json#{i}", run=sh("cat {x} > {out}"))
rule("all.txt", parts=each("each/{i}.txt", i="elements.json"), run=sh("cat {parts} > {out}"))
"""
    return {"rules.py": text}


def snakemake(_: int) -> Mapping[str, str]:
    command = ELEMENTS.replace("{k}", "{input}").replace("{out}", "{output}")
    text = f"""rule all:
    input: "out/all.txt"
checkpoint elements:
    input: "in/k.txt"
    output: directory("out/elements")
    shell: "mkdir -p {{output}}; {command}"
rule each:
    input: "out/elements/{{i}}.txt"
    output: "out/each/{{i}}.txt"
    shell: "cat {{input}} > {{output}}"
def parts(wildcards):
    folder = checkpoints.elements.get().output[0]
    return expand("out/each/{{i}}.txt", i=glob_wildcards(folder + "/{{i}}.txt").i)
rule collect:
    input: parts
    output: "out/all.txt"
    shell: "cat {{input}} > {{output}}"
"""
    return {"Snakefile": text}


def doit(_: int) -> Mapping[str, str]:
    command = ELEMENTS.replace("{k}", "in/k.txt").replace("{out}", "out/elements")
    text = f"""from pathlib import Path

from doit import create_after

DOIT_CONFIG = {{"default_tasks": ["all"]}}


def task_elements():
    return {{"file_dep": ["in/k.txt"], "targets": ["out/done"], "actions": ["{command}", "touch out/done"]}}


@create_after(executed="elements")
def task_each():
    for source in Path("out/elements").glob("*.txt"):
        target = f"out/each/{{source.name}}"
        actions = [f"cat {{source}} > {{target}}"]
        yield {{"name": source.name, "file_dep": [str(source)], "targets": [target], "actions": actions}}


@create_after(executed="each")
def task_all():
    parts = [f"out/each/{{source.name}}" for source in Path("out/elements").glob("*.txt")]
    actions = [f"cat {{' '.join(parts)}} > out/all.txt"]
    return {{"file_dep": parts, "targets": ["out/all.txt"], "actions": actions}}
"""
    return {"dodo.py": text, "out/elements/.keep": "", "out/each/.keep": ""}


def redun(_: int) -> Mapping[str, str]:
    command = ELEMENTS.replace("{k}", "{k.path}").replace("{out}", "out/elements")
    text = f"""import subprocess

from redun import Dir, File, task

redun_namespace = "fanout"


@task()
def elements(k: File) -> Dir:
    subprocess.run(f"{command}", shell=True, check=True)
    return Dir("out/elements")


@task()
def one(source: File, target: str) -> File:
    subprocess.run(f"cat {{source.path}} > {{target}}", shell=True, check=True)
    return File(target)


@task()
def every(folder: Dir) -> list[File]:
    return [one(file, f"out/each/{{file.basename()}}") for file in folder if file.path.endswith(".txt")]


@task()
def collect(parts: list[File]) -> File:
    subprocess.run(f"cat {{' '.join(part.path for part in parts)}} > out/all.txt", shell=True, check=True)
    return File("out/all.txt")


@task(cache=False)
def main() -> File:
    return collect(every(elements(File("in/k.txt"))))
"""
    return {"workflow.py": text, "out/elements/.keep": "", "out/each/.keep": ""}


FOLDER = "labmake (folder, find)"
SLICES = "labmake (file, slices)"

PROJECTS = (
    Project("make", "make", make),
    Project(FOLDER, "labmake", labmake_folder, (), "generated/assets"),
    Project(SLICES, "labmake", labmake_slices, (), "generated/assets"),
    Project("doit", "doit", doit),
    Project("snakemake", "snakemake", snakemake),
    Project("redun", "redun", redun, ("workflow.py", "main")),
)


def cycle(project: Project, base: Path, width: int, jobs: int) -> Phases:
    """One run in a fresh folder: every phase, and after each the results are looked at."""
    folder = base / project.tool
    lay(project, folder, width, jobs, {"in/k.txt": f"{width}\n"})
    each = {f"each/{i}.txt": f"{i}\n" for i in range(1, width + 1)}
    phases: Phases = {}
    for phase in PHASES:
        phases[phase] = build(project, folder, jobs)
        check(project, folder, each, phase)
        check(project, folder, {"all.txt": "".join(each.values())}, phase, in_any_order=True)
    shutil.rmtree(folder)
    return phases
