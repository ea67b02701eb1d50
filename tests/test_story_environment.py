"""Stories about software: which steps run again when something is installed, upgraded or removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_packages import Site
from space import Space


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder for packages on the path of labmake and its steps."""
    made = Site(tmp_path / "site-packages")
    made.folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(made.folder))
    return made


PLOTS = """
rule("data/a.txt", run=py("src/tables.py:table"))
rule("figures/a.txt", table="data/a.txt", run=py("src/plots.py:plot"))
rule("data/c.txt", run=sh("echo shell > {out}"))
"""


def test_an_upgrade_reruns_the_steps_that_import_it_and_no_others(space: Space, site: Site) -> None:
    site.install("plotlib", "1.0", {"plotlib/__init__.py": "VERSION = '1.0'"})
    site.install("numlib", "2.1.0", {"numlib.py": "VERSION = '2.1.0'"})
    space.write("script.py", PLOTS)
    space.write("src/tables.py", "import numlib\ndef table(): return numlib.VERSION")
    space.write("src/plots.py", "import plotlib\ndef plot(table: str): return plotlib.VERSION + table")
    space.build()
    assert space.ran == ["data/a.txt", "data/c.txt", "figures/a.txt"]
    site.install("plotlib", "1.1", {"plotlib/__init__.py": "VERSION = '1.1'"})
    assert "environment  plotlib 1.0 → 1.1" in space.why("figures/a.txt")
    space.build()
    assert space.ran == ["figures/a.txt"] and space.read("figures/a.txt") == "1.12.1.0"
    site.install("ruff", "0.6", {"ruff/__init__.py": ""})
    space.build()
    assert space.ran == []
    site.remove("plotlib")
    site.install("plotlib", "1.0", {"plotlib/__init__.py": "VERSION = '1.0'"})
    space.build()
    assert space.ran == [] and space.restored == ["figures/a.txt"]


def test_what_a_distribution_needs_counts_with_the_extras_that_are_asked_for(space: Space, site: Site) -> None:
    site.install("base", "1", {"base.py": ""})
    site.install("extra-a", "1", {"extra_a.py": ""})
    site.install("never", "1", {"never.py": ""})
    needs = ["base>=1", "extra-a; extra == 'fast'", "never; extra == 'slow'", "never; python_version < '3'", "gone"]
    site.install("middle", "1", {"middle.py": ""}, needs, ["fast", "slow"])
    site.install("top", "1", {"top.py": ""}, ["Middle[Fast] (>=1)"])
    space.write("script.py", "import top\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    for name, runs in (("base", True), ("extra-a", True), ("never", False), ("middle", True), ("gone", True)):
        site.install(name, "2", {f"{name.replace('-', '_')}.py": ""}, needs if name == "middle" else ())
        space.build()
        assert space.ran == (["data/a.txt"] if runs else []), name


def test_distributions_that_need_each_other_are_no_trap(space: Space, site: Site) -> None:
    site.install("hen", "1", {"hen.py": ""}, ["egg"])
    site.install("egg", "1", {"egg.py": ""}, ["hen[x]"])
    space.write("script.py", "import hen\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    site.install("egg", "2", {"egg.py": ""}, ["hen"])
    assert "egg 1 → 2" in space.why("data/a.txt")


def test_a_namespace_package_means_the_distribution_of_its_part(space: Space, site: Site) -> None:
    site.install("cloud-storage", "1", {"vendor/cloud/storage/__init__.py": "", "vendor/cloud/storage/api.py": ""})
    site.install("cloud-tables", "1", {"vendor/cloud/tables.py": ""})
    old = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
    site.install("old-a", "1", {"old/__init__.py": old, "old/a.py": ""})
    site.install("old-b", "1", {"old/b.py": ""})
    space.write(
        "script.py",
        """
        rule("data/storage.txt", run=py("src/storage.py:f"))
        rule("data/tables.txt", run=py("src/tables.py:f"))
        rule("data/old.txt", run=py("src/old_one.py:f"))
        """,
    )
    space.write("src/storage.py", "import vendor.cloud.storage.api\ndef f(): return 'a'")
    space.write("src/tables.py", "from vendor.cloud import tables as t\ndef f(): return 'a'")
    space.write("src/old_one.py", "import old.a\ndef f(): return 'a'")
    space.build()
    site.install("cloud-tables", "2", {"vendor/cloud/tables.py": ""})
    space.build()
    assert space.ran == ["data/tables.txt"]
    site.install("cloud-storage", "2", {"vendor/cloud/storage/__init__.py": "", "vendor/cloud/storage/api.py": ""})
    space.build()
    assert space.ran == ["data/storage.txt"]
    site.install("old-b", "2", {"old/b.py": ""})
    space.build()
    assert space.ran == []


def test_a_distribution_may_have_another_name_than_its_module(space: Space, site: Site) -> None:
    site.install("Py-Image.Lib", "1", {"imagelib/__init__.py": ""})
    info = site.install("yamlish", "1", {"ymlsh.py": ""}, record=False)
    (info / "top_level.txt").write_text("ymlsh\n")
    space.write("script.py", "from imagelib import x\nimport ymlsh\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.write(
        "script.py", "def a():\n    import ymlsh, imagelib\n    return 'a'\nrule('data/a.txt', run=py('script.py:a'))"
    )
    space.build()
    site.install("Py-Image.Lib", "2", {"imagelib/__init__.py": ""})
    assert "py-image-lib 1 → 2" in space.why("data/a.txt")
    space.build()
    (site.folder / "yamlish-1.dist-info").rename(site.folder / "yamlish-2.dist-info")
    (site.folder / "yamlish-2.dist-info/METADATA").write_text("Name: yamlish\nVersion: 2\n")
    assert "yamlish 1 → 2" in space.why("data/a.txt")


DYNAMIC = """
import importlib

def load(name):
    return importlib.import_module("plug" + name)

@rule("data/{name}.txt")
def a(name):
    return load(name).VERSION

rule("data/both.txt", parts=["data/in.txt", "data/on.txt"], run=sh("cat {parts} > {out}"))
"""


def test_what_is_imported_only_while_a_step_runs_counts_too(space: Space, site: Site) -> None:
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    site.install("plug-on", "1", {"plugon.py": "VERSION = 'on 1'"})
    space.write("script.py", DYNAMIC)
    space.build()
    assert space.ran == ["data/both.txt", "data/in.txt", "data/on.txt"]
    site.install("plug-in", "2", {"plugin/__init__.py": "VERSION = 'in 2'"})
    why = space.why("data/in.txt")
    assert "plug-in changed" in why and "environment  plug-in 1 → 2" in why
    space.build()
    assert space.ran == ["data/both.txt", "data/in.txt"] and space.read("data/both.txt") == "in 2on 1"
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    space.build()
    assert space.ran == [] and space.read("data/both.txt") == "in 1on 1"
    space.build()
    assert space.ran == [] and space.restored == []
    site.install("plug-on", "2", {"plugon.py": "VERSION = 'on 1'"})
    space.build()
    assert space.ran == ["data/on.txt"]
    site.remove("plug-on")
    assert "plug-on 2 removed" in space.why("data/on.txt")
    assert "No module named 'plugon'" in space.build(code=1)


def test_another_worktree_takes_a_trace_only_with_the_same_discovered_versions(space: Space, site: Site) -> None:
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    space.write("script.py", DYNAMIC)
    space.git("add", "-A")
    space.git("commit", "-qm", "one")
    space.build("data/in.txt")
    space.git("worktree", "add", "-q", "../other")
    other = Space(space.root.parent / "other")
    other.build("data/in.txt")
    assert other.ran == [] and other.restored == ["data/in.txt"]
    site.install("plug-in", "2", {"plugin/__init__.py": "VERSION = 'in 2'"})
    other.build("data/in.txt")
    assert other.ran == ["data/in.txt"] and other.read("data/in.txt") == "in 2"
    space.build("data/in.txt")
    assert space.ran == [] and space.read("data/in.txt") == "in 2"


def test_a_step_that_ends_without_telling_depends_on_all_that_is_installed(space: Space, site: Site) -> None:
    site.install("anything", "1", {"anything.py": ""})
    space.write("script.py", "rule('data/a.txt', run=py('./end.py'))")
    space.write(
        "./end.py",
        """
        import os, sys
        open(sys.argv[-1].partition("=")[2], "w").write("a")
        os._exit(0)
        """,
    )
    space.build()
    site.install("anything", "2", {"anything.py": ""})
    space.build()
    assert space.ran == ["data/a.txt"]
