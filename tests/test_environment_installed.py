"""What is installed: from the files that installers leave, whatever state they are in."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest
from site_packages import Site

from labmake.environment import installed
from labmake.environment.installed import Installed, look, own_path
from labmake.environment.locks import locked
from labmake.environment.metadata import normal, read
from labmake.model import digest_of


def seen(*folders: Path, root: str = "/nowhere", memo: dict[str, object] | None = None) -> Installed:
    return look([str(folder) for folder in folders], root, {} if memo is None else memo, lambda _: True)


def version(found: Installed, name: str) -> str:
    return found.version(name, installed.plain_digest)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "site-packages")
    made.folder.mkdir()
    return made


def test_this_interpreters_distributions_are_those_that_importlib_knows() -> None:
    found = look(own_path("/nowhere"), "/nowhere", {}, lambda _: True)
    for one in importlib.metadata.distributions():
        name = normal(one.metadata["Name"])
        if name not in ("labmake", "pip", "setuptools"):  # these may be there twice, and the path decides
            assert version(found, name) == one.version
    names = {"yaml": "pyyaml", "sklearn.svm": "scikit-learn", "PIL.Image": "pillow", "dateutil": "python-dateutil"}
    for module, name in {**names, "mpl_toolkits.mplot3d": "matplotlib", "_pytest": "pytest"}.items():
        assert found.owners(module) == [name]
    assert {"numpy", "python-dateutil"} <= found.with_needs(["pandas"])
    assert not {"matplotlib", "ruff", "pytest"} & found.with_needs(["pandas"])
    assert found.owners("labmake") == [] == found.owners("no_such_module")


def test_the_first_folder_on_the_path_wins(tmp_path: Path) -> None:
    first, second = Site(tmp_path / "a"), Site(tmp_path / "b")
    first.install("lib", "2", {"lib.py": ""})
    second.install("lib", "1", {"lib.py": ""})
    second.install("other", "3", {"other.py": "", "shadowed.py": ""})
    (first.folder / "shadowed.py").write_text("mine = 1")
    found = seen(first.folder, tmp_path / "absent.zip", second.folder)
    assert version(found, "lib") == "2" and found.owners("other") == ["other"]
    assert found.owners("shadowed") == ["module:shadowed"]  # it hides that of other
    before = version(found, "module:shadowed")
    (first.folder / "shadowed.py").write_text("mine = 2")
    assert version(seen(first.folder, second.folder), "module:shadowed") != before


def test_two_versions_in_one_folder_are_both_told(site: Site) -> None:
    info = site.install("lib", "1", {"lib.py": ""}, ["a"])
    kept = info.rename(info.with_name("away"))
    site.install("lib", "2", {"lib.py": ""}, ["b"])
    kept.rename(info)
    site.install("a", "1", {})
    site.install("b", "1", {})
    found = seen(site.folder)
    assert version(found, "lib") == "1,2" and found.owners("lib") == ["lib", "lib"]
    assert found.with_needs(["lib"]) == {"lib", "a", "b"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it has no metadata"),
        ("Name: lib\n", "its metadata tell no version"),
        ("\x00\x01 not: headers\n\xff", "its metadata tell no version"),
        ("Name: lib\nVersion: 1\nRequires-Dist: base !! 3\n", "its metadata name a requirement that is none"),
        ("Name: lib\nVersion: 1\nRequires-Dist: ???\n", "its metadata name a requirement that is none"),
    ],
)
def test_broken_metadata_are_a_fault_that_is_told(site: Site, text: str, fault: str) -> None:
    site.install("base", "1", {})
    site.install("lib", "1", {"lib.py": ""}, metadata=text)
    found = seen(site.folder)
    assert version(found, "lib") == "1" and found.owners("lib") == ["lib"]
    assert [told for told in found.faults("lib") if told.startswith(fault)]
    assert ("base" in found.with_needs(["lib"])) == ("base" in text)


def test_a_folder_without_any_metadata_still_has_a_name_and_a_version(site: Site) -> None:
    (site.folder / "bare_lib-3.1.dist-info").mkdir()
    (site.folder / "bare_lib").mkdir()
    (site.folder / "old.thing-2.0-py3.11.egg-info").write_text("Name: old.thing\nVersion: 2.0\n")
    found = seen(site.folder)
    assert version(found, "bare-lib") == "3.1" and found.owners("bare_lib.x") == ["bare-lib"]
    assert version(found, "old-thing") == "2.0"


def test_metadata_are_read_once_and_again_when_they_are_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    info = site.install("lib", "1", {"lib.py": ""})
    site.install("other", "1", {"other.py": ""})
    memo: dict[str, object] = {}
    reads: list[str] = []
    monkeypatch.setattr(installed, "read", lambda folder, entry: reads.append(entry) or read(folder, entry))
    assert version(seen(site.folder, memo=memo), "lib") == "1"
    assert version(seen(site.folder, memo=memo), "lib") == "1" and len(reads) == 2
    (info / "METADATA").write_text("Name: lib\nVersion: 1.5\n")
    found = seen(site.folder, memo=memo)
    assert version(found, "lib") == "1.5" and reads[2:] == ["lib-1.dist-info"]
    memo.update({key: {"lib": "damaged"} for key in memo})
    assert version(seen(site.folder, memo=memo), "lib") == "1.5"


def test_metadata_that_were_written_just_now_are_not_trusted(site: Site) -> None:
    info = site.install("lib", "1", {"lib.py": ""})
    memo: dict[str, object] = {}
    look([str(site.folder)], "/nowhere", memo, lambda _: False)
    stamp = os.stat(info / "METADATA")
    (info / "METADATA").write_text((info / "METADATA").read_text().replace("Version: 1", "Version: 2"))
    os.utime(info / "METADATA", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert version(seen(site.folder, memo=memo), "lib") == "2"


def test_a_copy_that_no_index_gave_is_known_by_its_files(site: Site) -> None:
    direct = {"url": "file:///home/me/lib", "dir_info": {}}
    site.install("lib", "1", {"lib.py": "a = 1"}, direct=direct)
    before = version(seen(site.folder), "lib")
    site.install("lib", "1", {"lib.py": "a = 1"}, direct={**direct, "url": "file:///home/you/lib"})
    assert version(seen(site.folder), "lib") == before
    site.install("lib", "1", {"lib.py": "a = 2"}, direct=direct)
    after = version(seen(site.folder), "lib")
    assert before != after and before.startswith("1 (") and after.startswith("1 (")
    commit = {"url": "https://example.org/lib", "vcs_info": {"vcs": "git", "commit_id": "f" * 40}}
    site.install("lib", "1", {"lib.py": "a = 2"}, direct=commit)
    assert version(seen(site.folder), "lib") == f"1 ({'f' * 12})"


@pytest.mark.parametrize("how", ["path", "finder", "hook"])
def test_a_development_install_is_known_by_its_sources(site: Site, tmp_path: Path, how: str) -> None:
    source = tmp_path / "lib-project"
    (source / "src" / "lib").mkdir(parents=True)
    (source / "src" / "lib" / "__init__.py").write_text("a = 1")
    (source / "notes.txt").write_text("1")
    files = {"path": {"__editable__.lib.pth": f"{source}/src\n"}, "hook": {"_lib_loader.py": ""}}
    mapping = f"import sys\nMAPPING: dict[str, str] = {{'lib': '{source}/src/lib'}}\nNAMESPACES = {{}}\n"
    files["finder"] = {"__editable___lib_1_finder.py": mapping}
    direct = {"url": source.as_uri(), "dir_info": {"editable": True}}
    site.install("lib", "1", files[how], ["base"], direct=direct)
    site.install("base", "1", {})
    path = [site.folder, source / "src"] if how == "path" else [site.folder]
    found = seen(*path)
    assert found.owners("lib.part") == ["lib"] and found.with_needs(["lib"]) == {"lib", "base"}
    before = version(found, "lib")
    (source / "notes.txt").write_text("2")
    assert version(seen(*path), "lib") == before and before.startswith("1 (")
    (source / "src" / "lib" / "new.py").write_text("a = 2")
    assert version(seen(*path), "lib") != before
    assert seen(*path, root=str(source)).owners("lib") == ([] if how != "path" else ["module:lib"])


def test_commands_belong_to_the_distribution_that_brings_them(site: Site) -> None:
    info = site.install("tool", "1", {"tool.py": ""})
    (info / "RECORD").write_text((info / "RECORD").read_text() + "../../../bin/run-tool,,\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nother-tool = tool:main\n[x]\nno = a:b\n")
    assert seen(site.folder).scripts == {"run-tool": ["tool"], "other-tool": ["tool"]}


def test_the_path_of_steps_has_neither_the_project_nor_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    path = installed.outside([str(tmp_path / "src"), "", *sys.path, "/elsewhere"], str(tmp_path), sys.prefix)
    assert "/elsewhere" in path and str(tmp_path / "src") not in path
    assert os.path.dirname(os.__file__) not in path


POETRY = """
[[package]]
name = "NumPy"
version = "2.1.0"
[[package]]
name = "numpy"
version = "1.26.0"
[metadata]
content-hash = "x"
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("poetry.lock", POETRY, {"numpy": ["2.1.0", "1.26.0"]}),
        ("pylock.toml", 'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\n', {"a": ["1"]}),
        ("requirements.txt", "# x\nA.b[c] == 1.0 ; python_version > '3' # y\nd>=2\n-r other\ne==3 \\\n", None),
        ("uv.lock", "version = [broken", {}),
        ("poetry.lock", 'package = "none"', {}),
    ],
)
def test_the_versions_in_a_lock_file(name: str, text: str, expected: dict[str, list[str]] | None) -> None:
    assert locked(text.encode(), name) == ({"a-b": ["1.0"], "e": ["3"]} if expected is None else expected)


def test_another_spelling_of_a_version_is_no_mismatch() -> None:
    wanted = {"a": ["1.0"], "b": ["2"], "c": ["3", "4"], "d": ["1.0"]}
    have = {"a": "1.0.0", "b": "2+cu121", "c": "5", "d": "1.0 (abc)", "e": "9"}
    assert installed.mismatches(wanted, have) == [("c", "3 or 4", "5")]
    assert installed.mismatches({"a": ["1"]}, {"a": "no version"}) == [("a", "1", "no")]


def test_digests_of_loose_files_follow_their_content(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    assert installed.plain_digest(str(tmp_path / "a.py")) == digest_of(b"x")
