"""Blame: which commit changed a target's content, and what in it did, told from traces without running anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from space import EXPERIMENT, Done, Space, wait_until

FEATURES = "def features(raw, window):\n    return str(sum(map(int, raw.read_text().split())) * window)\n"

RULES = """
rule("data/features.txt", raw="./raw.txt", run=py("src/features.py:features", window={window}))
rule("data/answer.txt", features="data/features.txt", run=sh("echo answer $(cat {{features}}) > {{out}}"))
"""


def commit(space: Space, subject: str) -> str:
    """Commit everything; returns the hash as blame shows it."""
    space.git("add", "-A")
    space.git("commit", "-q", "--allow-empty", "-m", subject)
    return space.git("rev-parse", "HEAD").strip()[:10]


def rules(space: Space, window: int) -> None:
    space.write("script.py", RULES.format(window=window))


def blame(space: Space, *words: str, code: int = 0) -> Done:
    return space.run("blame", *words, code=code)


def files_of(space: Space) -> dict[str, tuple[int, bytes]]:
    """All files of the project and of labmake's facts: with their times and contents."""
    found = {}
    for path in space.root.rglob("*"):
        inside = path.relative_to(space.root).parts
        if path.is_file() and inside[0] != ".git":
            found[str(path)] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


@pytest.fixture
def told(space: Space) -> Space:
    """A chain of two steps, built and committed."""
    rules(space, 2)
    space.write("./raw.txt", "1 2 3\n")
    space.write("src/features.py", FEATURES)
    space.build("data/answer.txt")
    commit(space, "First version")
    return space


def test_a_parameter_that_changed_is_found_with_its_commit_author_and_values(told: Space) -> None:
    rules(told, 3)
    told.build("data/answer.txt")
    guilty = commit(told, "A wider window")
    told.write("/notes.txt", "nothing\n")
    commit(told, "Notes")
    said = blame(told, "data/answer.txt")
    assert f"data/answer.txt changed in\n  {guilty}" in said
    assert "Story <story@example.org>  A wider window" in said
    assert re.search(r"data/features.txt  [0-9a-f]{12} → [0-9a-f]{12}\n  parameter  window  2 → 3\n", said.text)
    assert "-answer 12\n" in said and "+answer 18\n" in said


def test_what_is_not_committed_yet_counts_as_one_more_commit(told: Space) -> None:
    told.write("src/features.py", FEATURES.replace("* window", "* window + 1"))
    told.build("data/answer.txt")
    said = blame(told, "data/answer.txt")
    assert "changed in\n  not committed yet\n" in said
    assert "  code  src/features.py\n" in said and "+    return str(sum(map(int" in said
    commit(told, "One more")
    assert "One more" in blame(told, "data/answer.txt") and "not committed" not in told.last


def test_the_cause_is_followed_to_the_file_whose_lines_differ(told: Space) -> None:
    told.write("./raw.txt", "1 2 4\n")
    told.build("data/answer.txt")
    commit(told, "Corrected data")
    said = blame(told, "data/answer.txt").text
    inputs = re.findall(r"input  (.*?)  [0-9a-f]{12} → ", said)
    assert inputs == ["features: data/features.txt", "raw: raw.txt"]
    assert "-1 2 3\n" in said and "+1 2 4\n" in said


def test_a_commit_that_changed_code_and_not_content_is_counted_and_not_blamed(told: Space) -> None:
    told.write("src/features.py", FEATURES.replace("sum(", "0 + sum("))
    told.build("data/answer.txt")
    assert told.ran == ["data/features.txt"]  # early cutoff
    silent = commit(told, "Tidied")
    said = blame(told, "data/answer.txt")
    assert "data/answer.txt was first made in" in said and "First version" in said
    assert f"1 commit changed how it is made and not its content: {silent}" in said


def test_a_change_between_commits_that_were_never_built_is_narrowed_to_these(told: Space) -> None:
    names = []
    for window in (3, 4, 5):
        rules(told, window)
        names.append(commit(told, f"Window {window}"))
    told.write("/notes.txt", "x\n")
    commit(told, "Notes")
    told.build("data/answer.txt")
    said = blame(told, "data/answer.txt")
    assert "changed in one of these commits; of those in between this store has no result" in said
    assert re.findall(r"^  ([0-9a-f]{10})  .*Window", said.text, re.MULTILINE) == names[::-1]
    assert "parameter  window  2 → 5" in said and "Notes" not in said.text.partition("parameter")[0]


def test_a_target_that_older_commits_do_not_have_was_first_made_in_the_one_that_added_its_rule(told: Space) -> None:
    text = told.path("script.py").read_text()
    told.path("script.py").write_text(text + 'rule("data/extra.txt", run=sh("echo extra > {out}"))\n')
    told.build("data/extra.txt")
    guilty = commit(told, "An extra")
    assert f"data/extra.txt was first made in\n  {guilty}" in blame(told, "data/extra.txt")


def test_a_commit_whose_rules_do_not_load_is_skipped_and_named(told: Space) -> None:
    told.write("script.py", "rule(\n")
    broken = commit(told, "Oops")
    rules(told, 3)
    told.build("data/answer.txt")
    mended = commit(told, "Mended")
    said = blame(told, "data/answer.txt")
    assert f"skipped {broken}" in said and "is no valid Python" in said
    assert re.findall(r"^  ([0-9a-f]{10})  ", said.text, re.MULTILINE) == [mended, broken]


def test_a_change_on_a_branch_is_found_on_its_commit_and_not_on_the_merge(told: Space) -> None:
    told.git("checkout", "-q", "-b", "wider")
    rules(told, 3)
    told.build("data/answer.txt")
    guilty = commit(told, "On the branch")
    told.git("checkout", "-q", "-")
    told.write("/notes.txt", "x\n")
    commit(told, "Meanwhile")
    told.git("merge", "-q", "--no-ff", "-m", "Merge wider", "wider")
    told.build("data/answer.txt")
    said = blame(told, "data/answer.txt")
    assert f"changed in\n  {guilty}" in said and "Merge wider" not in said


def test_a_merge_whose_result_is_that_of_neither_side_is_blamed_itself(told: Space) -> None:
    told.git("checkout", "-q", "-b", "wider")
    rules(told, 3)
    told.build("data/answer.txt")
    commit(told, "Window 3")
    told.git("checkout", "-q", "-")
    told.write("./raw.txt", "1 2 4\n")
    told.build("data/answer.txt")
    commit(told, "Other data")
    told.git("merge", "-q", "--no-ff", "-m", "Merge wider", "wider")
    told.build("data/answer.txt")
    assert re.search(r"changed in\n  [0-9a-f]{10}  .*  Merge wider\n", blame(told, "data/answer.txt").text)


def test_a_module_that_the_rules_import_is_that_of_each_commit(space: Space) -> None:
    space.write("script.py", "from settings import WORD\nrule('data/x.txt', run=sh('echo ' + WORD + ' > {out}'))\n")
    for word in ("one", "two", "three"):
        space.write("src/settings.py", f"WORD = '{word}'\n")
        space.build("data/x.txt")
        commit(space, f"Say {word}")
    said = blame(space, "data/x.txt", "-n", "3").text
    assert re.findall(r"Say (\w+)$", said, re.MULTILINE) == ["three", "two", "one"]
    assert "-one\n" in said and "+three\n" in said and 'text  "echo two' in said


def test_an_experiment_that_was_renamed_is_followed_under_its_old_name(told: Space) -> None:
    other = "2026-01-02-Another-Name"
    told.git("mv", f"scripts/{EXPERIMENT}", f"scripts/{other}")
    told.experiment = other
    told.build("data/answer.txt")
    assert told.ran == []
    commit(told, "A better name")
    rules(told, 3)
    told.build("data/answer.txt")
    commit(told, "Window 3")
    said = blame(told, "data/answer.txt", "-n", "5")
    assert f"the experiment was called {EXPERIMENT} before" in said
    assert re.findall(r"^  [0-9a-f]{10}  .*>  (.*)$", said.text, re.MULTILINE) == ["Window 3", "First version"]
    assert "parameter  window  2 → 3" in said


def test_nothing_is_run_and_nothing_of_the_user_is_touched(told: Space) -> None:
    for window in (3, 4):
        rules(told, window)
        told.build("data/answer.txt")
        commit(told, f"Window {window}")
    told.write("src/features.py", FEATURES + "\n# not committed\n")
    folder = told.root / ".git" / "labmake"
    store = sum(path.read_bytes().count(b'"outputs"') for path in (folder / "store" / "segments").glob("*.seg"))
    index, before = (told.root / ".git" / "index").read_bytes(), files_of(told)
    status = told.git("status", "--porcelain")
    said = blame(told, "data/answer.txt", "-n", "9")
    assert "Window 4" in said and told.ran == []
    assert files_of(told) == before and told.git("status", "--porcelain") == status
    assert (told.root / ".git" / "index").read_bytes() == index and told.git("worktree", "list").count("\n") == 1
    assert store == sum(path.read_bytes().count(b'"outputs"') for path in (folder / "store" / "segments").glob("*.seg"))
    assert list((folder / "blame").iterdir()) == []
    told.build("data/answer.txt")
    assert told.ran == [] and told.restored == []


def test_without_facts_the_traces_tell(told: Space) -> None:
    rules(told, 3)
    told.build("data/answer.txt")
    commit(told, "Window 3")
    shutil.rmtree(told.root / ".git" / "labmake" / "state")
    shutil.rmtree(told.root / "generated")
    assert "parameter  window  2 → 3" in blame(told, "data/answer.txt")
    assert not told.exists("data/answer.txt")


def test_data_from_outside_are_what_they_were_pinned_as(space: Space, tmp_path: Path) -> None:
    data = tmp_path / "outside.csv"
    count = "rule('data/n.txt', raw='data/raw.csv', run=sh('wc -l < {raw} > {out}'))"
    space.write("script.py", f"source('data/raw.csv', '{data}')\n{count}\n")
    for rows in (1, 2, 3):
        data.write_text("row\n" * rows)
        if rows > 1:
            space.path("hashes.txt").unlink()
        space.build("data/n.txt")
        commit(space, f"{rows} rows")
    said = blame(space, "data/n.txt", "-n", "2")
    assert re.findall(r"(\d) rows$", said.text, re.MULTILINE) == ["3", "2"]
    assert "data  what was brought in is another" in said
    assert "changed in" in blame(space, "data/raw.csv") and "3 rows" in space.last


def test_data_that_git_ignores_are_taken_as_they_are(space: Space) -> None:
    (space.root / ".gitignore").write_text("generated/\n/data-raw/\n")
    space.write("/data-raw/x.txt", "5\n")
    space.write("script.py", "rule('data/y.txt', x='/data-raw/x.txt', run=sh('echo one $(cat {x}) > {out}'))\n")
    space.build("data/y.txt")
    commit(space, "One")
    space.write("script.py", "rule('data/y.txt', x='/data-raw/x.txt', run=sh('echo two $(cat {x}) > {out}'))\n")
    space.build("data/y.txt")
    commit(space, "Two")
    assert re.search(r"changed in\n  [0-9a-f]{10}  .*  Two\n", blame(space, "data/y.txt").text)
    assert space.path("/data-raw/x.txt").read_text() == "5\n"


def test_of_a_folder_the_files_that_differ_are_named(space: Space) -> None:
    files = "mkdir -p {out} && echo same > {out}/same && echo %s > {out}/m && echo x > {out}/n%s"
    for number in (1, 2):
        space.write("script.py", f"rule('models/', run=sh('{files % (number, number)}'))\n")
        space.build("models/")
        commit(space, f"Model {number}")
    listed = blame(space, "models/").text.partition("content of")[2]
    assert "~ m\n" in listed and "- n1\n" in listed and "+ n2\n" in listed and "same" not in listed
    assert "the content of models/m:" in blame(space, "models/m")


def test_a_document_is_blamed_for_the_result_that_it_shows(told: Space) -> None:
    told.write("report.md", "# Report\n\nThe answer.\n")
    told.build("outputs/report.html")
    commit(told, "A report")
    told.write("report.md", "# Report\n\nThe other answer.\n")
    told.build("outputs/report.html")
    guilty = commit(told, "Another word")
    said = blame(told, "outputs/report.html")
    assert f"outputs/report.html changed in\n  {guilty}" in said and "+The other answer.\n" in said


def test_the_environment_of_then_is_told_with_the_commit_that_changed_the_lock(space: Space, tmp_path: Path) -> None:
    site = tmp_path / "site"
    space.write("script.py", "rule('data/x.txt', run=py('src/step.py:make'))\n")
    space.write("src/step.py", "import numpyish\n\ndef make():\n    return numpyish.VERSION\n")
    for version in ("2.1.0", "2.1.1"):
        shutil.rmtree(site, ignore_errors=True)
        info = site / f"numpyish-{version}.dist-info"
        info.mkdir(parents=True)
        (site / "numpyish.py").write_text(f"VERSION = '{version}'\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: numpyish\nVersion: {version}\n")
        (info / "RECORD").write_text("numpyish.py,,\n")
        (info / "top_level.txt").write_text("numpyish\n")
        space.write("/uv.lock", f"numpyish {version}\n")
        space.build("data/x.txt", env={"PYTHONPATH": str(site)})
        commit(space, f"numpyish {version}")
        space.write("/notes.txt", version)
        commit(space, f"Notes on {version}")
    said = space.run("blame", "data/x.txt", env={"PYTHONPATH": str(site)})
    assert re.search(r"changed in\n  [0-9a-f]{10}  .*  numpyish 2.1.1\n", said.text)
    assert "environment  numpyish 2.1.0 → 2.1.1" in said and "-2.1.0\n" in said


# Figures -----------------------------------------------------------------------------------------------------------

PNG = """
from PIL import Image

def draw(out, colour):
    image = Image.new("RGB", (20, 10), "white")
    image.paste(Image.new("RGB", (5, 5), colour), (0, 0))
    image.save(out)
"""

SQUARE = '<rect width=\\"5\\" height=\\"5\\" fill=\\"%s\\"/>'
FRAME = '<svg xmlns=\\"http://www.w3.org/2000/svg\\" width=\\"20\\" height=\\"10\\">'
SVG = f"rule('figures/p.svg', run=sh(\"echo '{FRAME}{SQUARE}</svg>' > {{out}}\"))\n"


def picture(said: Done) -> Path:
    found = re.search(r"^picture  (.*?)  \((.*)\)$", said.text, re.MULTILINE)
    assert found is not None, said.text
    return Path(found[1])


def test_a_figure_gets_a_picture_of_before_after_and_the_difference(space: Space, tmp_path: Path) -> None:
    from PIL import Image

    space.write("src/draw.py", PNG)
    for colour in ("red", "blue"):
        space.write("script.py", f"rule('figures/p.png', run=py('src/draw.py:draw', colour='{colour}'))\n")
        space.build("figures/p.png")
        commit(space, colour)
    said = blame(space, "figures/p.png")
    assert "12 % of the pixels differ" in said
    place = picture(said)
    assert place.parent == space.root / ".git" / "labmake" / "pictures"
    with Image.open(place) as drawn:
        assert drawn.size == (3 * 20 + 2 * 12, 10)
        at = [drawn.convert("RGB").getpixel((x, 2)) for x in (2, 34, 66, 80)]
    assert at == [(255, 0, 0), (0, 0, 255), (212, 0, 0), (255, 255, 255)]
    other = tmp_path / "d.png"
    assert picture(blame(space, "figures/p.png", "--output", str(other))) == other and other.exists()


def test_an_svg_is_drawn_by_typst_also_without_pillow(space: Space, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        space.write("script.py", SVG % colour)
        space.build("figures/p.svg")
        commit(space, colour)
    assert "of the pixels differ" in blame(space, "figures/p.svg")
    (tmp_path / "without" / "PIL").mkdir(parents=True)
    (tmp_path / "without" / "PIL" / "__init__.py").write_text("raise ImportError('none')\n")
    said = space.run("blame", "figures/p.svg", env={"PYTHONPATH": str(tmp_path / "without")})
    assert "install pillow to see the difference" in said
    assert picture(said).read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_read_says_so(space: Space) -> None:
    for word in ("one", "two"):
        space.write("script.py", f"rule('figures/p.png', run=sh('echo {word} > {{out}}'))\n")
        space.build("figures/p.png")
        commit(space, word)
    assert "no picture of the difference: it cannot be read as png" in blame(space, "figures/p.png")


# How far ------------------------------------------------------------------------------------------------------------


def test_history_and_since_bound_the_walk(told: Space) -> None:
    for number in range(3):
        told.write("/notes.txt", str(number))
        commit(told, f"Notes {number}")
    assert "older ones were not looked at" in blame(told, "data/answer.txt", "--history", "2")
    assert "no change of data/answer.txt was found" in told.last and "2 commits looked at" in told.last
    assert "no change of data/answer.txt was found" in blame(told, "data/answer.txt", "--since", "HEAD~2")
    assert "git knows no commit nonsense" in blame(told, "data/answer.txt", "--since", "nonsense", code=2)


def test_commits_that_touch_nothing_of_it_are_not_decided(told: Space) -> None:
    for number in range(5):
        told.write("/notes/a/b.txt", str(number))
        told.write("src/other.py", f"X = {number}\n")
        commit(told, f"Other things {number}")
    said = blame(told, "data/answer.txt")
    looked, decided = re.search(r"(\d+) commits looked at, (\d+) decided", said.text).groups()  # type: ignore[union-attr]
    assert (looked, decided) == ("6", "2")  # the worktree, and the commit before src/other.py came


def test_a_shallow_clone_says_where_its_history_ends(told: Space, tmp_path: Path) -> None:
    told.write("/notes.txt", "x")
    commit(told, "Notes")
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{told.root}", tmp_path / "shallow"], check=True)
    clone = Space(tmp_path / "shallow")
    clone.build("data/answer.txt")
    assert "older ones are not in this shallow clone" in blame(clone, "data/answer.txt")


def test_a_project_in_a_folder_of_its_repository(told: Space) -> None:
    for name in ("scripts", "src", ".gitignore"):
        (told.root / "lab").mkdir(exist_ok=True)
        (told.root / name).rename(told.root / "lab" / name)
    inner = Space(told.root / "lab")
    shutil.rmtree(told.root / "generated")
    commit(told, "Moved")
    rules(inner, 3)
    inner.build("data/answer.txt")
    commit(told, "Window 3")
    assert "was first made in one of" in blame(inner, "data/answer.txt") or "Window 3" in inner.last


def test_what_was_never_made_is_said(space: Space) -> None:
    rules(space, 2)
    space.write("./raw.txt", "1\n")
    space.write("src/features.py", FEATURES)
    commit(space, "Only rules")
    said = blame(space, "data/answer.txt")
    assert "data/answer.txt as it is now is not known" in said and "was made in none of the commits" in said


def test_without_git_or_commits_or_target_the_error_says_so(space: Space, tmp_path: Path) -> None:
    rules(space, 2)
    assert "no commit yet" in blame(space, "data/answer.txt", code=2)
    commit(space, "First")
    assert "no rule makes data/nothing.txt" in blame(space, "data/nothing.txt", code=2)
    assert "is a source file" in blame(space, f"scripts/{EXPERIMENT}/script.py", code=2)
    plain = Space(tmp_path / "plain")
    plain.write("script.py", "rule('data/x.txt', run=sh('echo > {out}'))\n")
    assert "in no git repository" in blame(plain, "data/x.txt", code=2)


def test_an_interrupt_and_a_kill_leave_nothing_for_long(told: Space) -> None:
    text = told.path("script.py").read_text()
    told.path("script.py").write_text("import time\nif '/blame/' in __file__:\n    time.sleep(600)\n" + text)
    commit(told, "Slow")
    rules(told, 3)
    told.build("data/answer.txt")
    folder = told.root / ".git" / "labmake" / "blame"

    def is_asleep() -> bool:
        return folder.exists() and any((one / "tree" / "scripts").exists() for one in folder.iterdir())

    running = told.start("blame", "data/answer.txt")
    wait_until(is_asleep)
    time.sleep(0.5)
    running.interrupt()
    running.end(130)
    assert list(folder.iterdir()) == []
    running = told.start("blame", "data/answer.txt")
    wait_until(is_asleep)
    running.kill()
    left = [one.name for one in folder.iterdir()]
    assert len(left) == 1
    told.run("gc", "-y")
    assert list(folder.iterdir()) == []


def test_the_oldest_commit_of_the_range_is_compared_with_the_one_before_it(told: Space) -> None:
    rules(told, 3)
    told.build("data/answer.txt")
    guilty = commit(told, "Window 3")
    for words in (("--since", "HEAD~1"), ("--history", "1")):
        assert f"changed in\n  {guilty}" in blame(told, "data/answer.txt", *words)
    assert "0 commits looked at" in blame(told, "data/answer.txt", "--since", "HEAD")


def test_json_tells_the_same_for_programs(told: Space) -> None:
    rules(told, 3)
    told.build("data/answer.txt")
    guilty = commit(told, "Window 3")
    said = json.loads(blame(told, "data/answer.txt", "-n", "5", "--json").text)
    change, first = said["changes"]
    assert change["commits"][0]["commit"].startswith(guilty) and change["commits"][0]["email"] == "story@example.org"
    assert change["after"] == said["digest"] and change["before"] == first["after"] and first["before"] == ""
    reasons = [reason for cause in change["causes"] for reason in cause["reasons"]]
    assert {"kind": "parameter", "subject": "window", "before": "2", "after": "3", "lines": []} in reasons
    assert change["lines"][-2:] == ["-answer 12", "+answer 18"] and said["end"] == "start"


def test_of_a_collector_those_are_followed_that_came_out_otherwise(space: Space) -> None:
    space.write("./folds.json", '["a", "b", "c"]')
    collect = "rule('data/all.txt', fits=each('fits/{f}.txt', f='./folds.json'), run=sh('cat {fits} > {out}'))\n"
    for word in ("x", "y"):
        fit = f"@plan('fits/{{f}}.txt')\ndef fit(f):\n    word = '{word}' if f == 'b' else 'x'\n"
        fit += "    return step(run=sh('echo ' + f + word + ' > {out}'))\n"
        space.write("script.py", fit + collect)
        space.build("data/all.txt")
        commit(space, word)
    said = blame(space, "data/all.txt").text
    assert re.findall(r"^(\S+)  [0-9a-f]{12} → [0-9a-f]{12}$", said, re.MULTILINE) == ["data/all.txt", "fits/b.txt"]
    space.write("./folds.json", '["a", "b", "c", "d"]')
    space.build("data/all.txt")
    said = blame(space, "data/all.txt").text
    assert "not committed yet" in said and "fits/d.txt  (none) → " in said and "was not needed before" in said


def test_a_group_has_no_single_content(told: Space) -> None:
    text = told.path("script.py").read_text()
    told.path("script.py").write_text(text + "group('both', 'data/answer.txt', 'data/features.txt')\n")
    commit(told, "A group")
    assert "both is a group" in blame(told, "both", code=2)
