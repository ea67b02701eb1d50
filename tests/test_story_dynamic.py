"""Dynamic pipelines: how many steps there are, and of which kind, is known once others have run."""

from __future__ import annotations

from space import Space

FANOUT = """
rule("data/folds.json", k="./k.txt", run=sh("seq -s, 1 $(cat {k}) | sed 's/.*/[&]/' > {out}"))
rule("data/fits/{fold}.txt", row="data/folds.json#{fold}", run=sh("echo fit $(cat {row}) > {out}"))
rule("data/all.txt", fits=each("data/fits/{fold}.txt", fold="data/folds.json"), run=sh("cat {fits} > {out}"))
"""


def test_one_rule_makes_as_many_targets_as_there_are_folds(space: Space) -> None:
    space.write("script.py", FANOUT)
    space.write("./k.txt", "3")
    space.build()
    assert space.read("data/all.txt") == "fit 1\nfit 2\nfit 3\n"
    space.build()
    assert space.ran == [] and "up to date" in space.last


def test_k_grows_by_one_and_one_step_and_the_collector_run(space: Space) -> None:
    space.write("script.py", FANOUT)
    space.write("./k.txt", "3")
    space.build()
    space.write("./k.txt", "4")
    space.build()
    assert space.ran == ["data/all.txt", "data/fits/4.txt", "data/folds.json"]


def test_k_shrinks_back_and_nothing_runs_and_stale_files_are_gone(space: Space) -> None:
    space.write("script.py", FANOUT)
    for k in ("3", "4", "3"):
        space.write("./k.txt", k)
        space.build()
    assert space.ran == []
    assert not space.exists("data/fits/4.txt")
    assert space.read("data/all.txt") == "fit 1\nfit 2\nfit 3\n"


BY_TYPE = """
from pathlib import Path

rule("data/raw/", names="./names.txt", run=sh("mkdir -p {out}; for n in $(cat {names}); do echo $n,1 > {out}$n; done"))


@plan("data/clean/{name}.txt")
def clean(name):
    path = Path("data/raw") / name
    if path.suffix == ".csv":
        return step(raw=path, run=sh("tr , ' ' < {raw} > {out}"))
    if path.suffix == ".json":
        return step(raw=path, run=py("src/clean.py:from_json"))
    return step(raw=path, run=sh("cp {raw} {out}"))


rule("data/all.txt", parts=each("data/clean/{name}.txt", name=find("data/raw/{name}")), run=sh("cat {parts} > {out}"))
"""

CLEAN = """
    def from_json(raw):
        return "from json: " + raw.read_text()
    """


def test_a_step_for_each_file_of_a_folder_depends_on_its_type_and_one_takes_them_all(space: Space) -> None:
    space.write("script.py", BY_TYPE)
    space.write("src/clean.py", CLEAN)
    space.write("./names.txt", "a.csv b.json")
    space.build()
    assert space.read("data/all.txt") == "a.csv 1\nfrom json: b.json,1\n"
    space.write("./names.txt", "a.csv b.json c.dat d.csv")
    space.build()
    assert space.ran == ["data/all.txt", "data/clean/c.dat.txt", "data/clean/d.csv.txt", "data/raw/"]
    assert space.read("data/all.txt") == "a.csv 1\nfrom json: b.json,1\nc.dat,1\nd.csv 1\n"
    space.write("src/clean.py", CLEAN.replace("from json", "json"))
    space.build()
    assert space.ran == ["data/all.txt", "data/clean/b.json.txt"]
    space.write("./names.txt", "b.json")
    space.build()
    assert space.ran == ["data/all.txt", "data/raw/"]
    assert [name for name in space.files() if name.startswith("data/clean")] == ["data/clean/b.json.txt"]


def test_a_plan_finds_the_file_of_a_name_and_chooses_by_its_suffix(space: Space) -> None:
    space.write(
        "script.py",
        """
        @plan("data/{name}.txt")
        def convert(name):
            path = find(f"./in/{name}.{{suffix}}")
            (suffix, path), = path.items()
            return step(raw=path, run=sh("sort {raw} > {out}" if path.suffix == ".txt" else "rev {raw} > {out}"))

        rule("all.txt", parts=each("data/{name}.txt", name=find("./in/{name}.{suffix}")), run=sh("cat {parts} > {out}"))
        """,
    )
    space.write("./in/a.txt", "2\n1\n")
    space.write("./in/b.log", "xyz\n")
    space.build()
    assert space.read("all.txt") == "1\n2\nzyx\n"
    space.path("./in/b.log").rename(space.path("./in/b.txt"))
    space.build()
    assert space.ran == ["all.txt", "data/b.txt"]
    assert space.read("all.txt") == "1\n2\nxyz\n"


def test_models_times_folds_both_known_from_earlier_steps(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("data/folds.json", k="./k.json", run=sh("cat {k} > {out}"))
        rule("data/models.json", m="./m.json", run=sh("cat {m} > {out}"))
        rule("fits/{model}/{fold}.txt", setting="data/models.json#{model}", rows="data/folds.json#{fold}",
             run=sh("echo {model}=$(cat {setting}) on $(cat {rows}) > {out}"))

        @rule("data/all.json", fits=each("fits/{model}/{fold}.txt", model="data/models.json", fold="data/folds.json"))
        def collect(fits):
            return {f"{model}/{fold}": path.read_text().strip() for (model, fold), path in fits.items()}
        """,
    )
    space.write("./k.json", "[1, 2]")
    space.write("./m.json", '{"ridge": 0.1, "lasso": 5}')
    space.build()
    assert space.json("data/all.json") == {
        "ridge/1": "ridge=0.1 on 1",
        "ridge/2": "ridge=0.1 on 2",
        "lasso/1": "lasso=5 on 1",
        "lasso/2": "lasso=5 on 2",
    }
    space.write("./m.json", '{"ridge": 0.1, "lasso": 7}')
    space.build()
    assert space.ran == ["data/all.json", "data/models.json", "fits/lasso/1.txt", "fits/lasso/2.txt"]
    space.write("./k.json", "[1, 2, 3]")
    space.build()
    assert space.ran == ["data/all.json", "data/folds.json", "fits/lasso/3.txt", "fits/ridge/3.txt"]


def test_each_fold_has_its_own_number_of_models_and_a_collector_of_its_own(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("data/folds.json", k="./k.json", run=sh("cat {k} > {out}"))
        rule("{fold}/models.json", n="data/folds.json#{fold}", run=sh("seq -s, $(cat {n}) | sed 's/.*/[&]/' > {out}"))
        rule("{fold}/fits/{model}.txt", known="{fold}/models.json#{model}", run=sh("echo {fold}{model} > {out}"))
        rule("{fold}/best.txt", fits=each("{fold}/fits/{model}.txt", model="{fold}/models.json"),
             run=sh("cat {fits} | xargs > {out}"))
        rule("all.txt", best=each("{fold}/best.txt", fold="data/folds.json"), run=sh("cat {best} > {out}"))
        """,
    )
    space.write("./k.json", '{"a": 1, "b": 3}')
    space.build()
    assert space.read("all.txt") == "a1\nb1 b2 b3\n"
    space.write("./k.json", '{"a": 2, "b": 3}')
    space.build()
    assert space.ran == ["a/best.txt", "a/fits/2.txt", "a/models.json", "all.txt", "data/folds.json"]
    assert space.read("all.txt") == "a1 a2\nb1 b2 b3\n"


SEARCH = """
def propose(past):
    best = min(past, key=lambda trial: trial["loss"], default={"x": 8})
    return best["x"] - 1


@plan("models/{n:[0-9]+}/")
def trial(n):
    past = read_json([f"models/{k}/metrics.json" for k in range(int(n))])
    return step(run=py("src/train.py:fit", x=propose(past)))


@plan("best.json")
def best():
    count = read_json("./trials.json")
    past = read_json([f"models/{k}/metrics.json" for k in range(count)])
    found = min(range(count), key=lambda k: past[k]["loss"])
    return step(metrics=f"models/{found}/metrics.json", run=sh("cat {metrics} > {out}"))
"""

TRAIN = """
    import json

    def fit(x, out):
        (out / "metrics.json").write_text(json.dumps({"x": x, "loss": (x - 5) ** 2}))
    """


def test_an_adaptive_search_reads_what_earlier_trials_found(space: Space) -> None:
    space.write("script.py", SEARCH)
    space.write("src/train.py", TRAIN)
    space.write("./trials.json", "3")
    space.build()
    assert [space.json(f"models/{n}/metrics.json")["x"] for n in range(3)] == [7, 6, 5]
    space.build()
    assert space.ran == [] and space.restored == []
    space.write("./trials.json", "5")
    space.build()
    assert space.ran == ["models/3/", "models/4/"]
    assert space.json("best.json") == {"x": 5, "loss": 0}


def test_an_adaptive_search_takes_another_way_only_where_the_results_differ(space: Space) -> None:
    space.write("script.py", SEARCH)
    space.write("src/train.py", TRAIN)
    space.write("./trials.json", "4")
    space.build()
    assert [space.json(f"models/{n}/metrics.json")["x"] for n in range(4)] == [7, 6, 5, 4]
    space.write("script.py", SEARCH.replace('best["x"] - 1', 'best["x"] - (1 if len(past) < 2 else 2)'))
    space.build()
    assert space.ran == ["best.json", "models/2/"] and space.restored == []
    assert [space.json(f"models/{n}/metrics.json")["x"] for n in range(4)] == [7, 6, 4, 4]


FAILING = """
rule("data/folds.json", run=sh("echo [1,2,3] > {out}"))
rule("data/fits/{fold}.txt", row="data/folds.json#{fold}", run=sh(
    "echo {fold} >> NOTES; test {fold} != 2 || test -e NOTES.mended; echo fit {fold} > {out}"))
rule("data/all.json", fits=each("data/fits/{fold}.txt", fold="data/folds.json", failed=None), run=py("src/all.py:take"))
"""


def test_a_collector_goes_on_without_a_member_that_failed_and_the_next_build_tries_it_first(space: Space) -> None:
    space.write("script.py", FAILING.replace("NOTES", str(space.notes)))
    space.write(
        "src/all.py",
        """
        def take(fits):
            return {fold: path.read_text().strip() if path else None for fold, path in fits.items()}
        """,
    )
    space.build(code=1)
    assert space.json("data/all.json") == {"1": "fit 1", "2": None, "3": "fit 3"}
    assert "data/fits/2.txt" in space.run("failures")
    assert "1 failed" in space.run("status")
    space.build(code=1)
    assert space.ran == [] and space.noted().count("2") == 2
    space.notes.with_name("notes.mended").touch()
    space.build()
    assert space.ran == ["data/all.json", "data/fits/2.txt"]
    assert space.json("data/all.json") == {"1": "fit 1", "2": "fit 2", "3": "fit 3"}
    assert "nothing failed" in space.run("failures")


def test_without_failed_none_the_collector_of_a_failed_member_is_not_made(space: Space) -> None:
    space.write("script.py", FAILING.replace("NOTES", str(space.notes)).replace(", failed=None", ""))
    space.write("src/all.py", "def take(fits):\n    return {}\n")
    space.build(code=1)
    assert not space.exists("data/all.json")
    assert space.ran == ["data/fits/1.txt", "data/fits/3.txt", "data/folds.json"]


def test_the_failure_of_a_member_that_no_longer_exists_is_forgotten(space: Space) -> None:
    script = FAILING.replace("NOTES", str(space.notes))
    space.write("script.py", script)
    space.write("src/all.py", "def take(fits):\n    return sorted(fits)\n")
    space.build(code=1)
    space.write("script.py", script.replace("[1,2,3]", "[1,3]"))
    space.build()
    assert space.json("data/all.json") == ["1", "3"] and "nothing failed" in space.run("failures")


def test_a_plan_that_iterates_over_a_set_decides_the_same_each_time(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("{n}.txt", run=sh("echo {n} > {out}"))

        @plan("all.csv")
        def all_of_them():
            names = {"anna", "berta", "carla", "dora", "emil", "fritz", "gerda", "hans"}
            return step(parts=[f"{name}.txt" for name in names], run=sh("cat {parts} > {out}"))
        """,
    )
    space.build()
    for _ in range(3):
        space.write("script.py", space.read("script.py") + "# decide again\n")
        space.build()
        assert space.ran == []


def test_a_plan_reads_none_for_a_target_that_failed(space: Space) -> None:
    space.write(
        "script.py",
        f"""
        rule("m/{{n}}.json", run=sh("test {{n}} != 1 || test -e {space.notes}; echo {{n}} > {{out}}"))

        @plan("sum.json")
        def total():
            seen = read_json([f"m/{{n}}.json" for n in range(3)], failed=None)
            return step(run=sh("echo {{seen}} > {{out}}", seen=str(seen)))
        """,
    )
    space.build(code=1)
    assert space.read("sum.json") == "[0, None, 2]\n"
    space.notes.touch()
    space.build()
    assert space.ran == ["m/1.json", "sum.json"] and space.read("sum.json") == "[0, 1, 2]\n"


SLICES = """
rule("data/table.FORM", table="./table.FORM", run=sh("cat {table} > {out}"))
rule("fits/{key}.txt", row="data/table.FORM#{key}", run=sh("cat {row} > {out}"))
rule("all.txt", fits=each("fits/{key}.txt", key="data/table.FORM"), run=sh("cat {fits} > {out}"))
"""


def test_a_new_element_spoils_no_other_and_a_changed_one_reruns_only_its_own(space: Space) -> None:
    space.write("script.py", SLICES.replace("FORM", "json"))
    space.write("./table.json", '{"a": {"x": 1}, "b": {"x": 2}}')
    space.build()
    assert space.read("all.txt") == '{"x":1}\n{"x":2}\n'
    space.write("./table.json", '{"b": {"x": 2},\n "new": {"x": 9}, "a": {"x": 1}}')
    space.build()
    assert space.ran == ["all.txt", "data/table.json", "fits/new.txt"]
    assert space.read("all.txt") == '{"x":2}\n{"x":9}\n{"x":1}\n'
    space.write("./table.json", '{"b": {"x": 3},\n "new": {"x": 9}, "a": {"x": 1}}')
    space.build()
    assert space.ran == ["all.txt", "data/table.json", "fits/b.txt"]


def test_a_row_of_a_table_is_a_slice_by_the_first_column(space: Space) -> None:
    space.write("script.py", SLICES.replace("FORM", "csv"))
    space.write("./table.csv", 'city,people\nRome,3\n"Bad Ems, Lahn",1\n')
    space.build()
    assert space.read("all.txt") == 'city,people\nRome,3\ncity,people\n"Bad Ems, Lahn",1\n'
    assert space.exists("fits/Bad Ems, Lahn.txt")
    space.write("./table.csv", 'city,people\nOslo,2\nRome,4\n"Bad Ems, Lahn",1\n')
    space.build()
    assert space.ran == ["all.txt", "data/table.csv", "fits/Oslo.txt", "fits/Rome.txt"]


def test_a_source_file_is_sliced_as_it_lies_there(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("fits/{city}.txt", row="./cities.csv#{city}", run=sh("tail -n 1 {row} > {out}"))
        rule("all.txt", fits=each("fits/{city}.txt", city="./cities.csv"), run=sh("cat {fits} > {out}"))
        """,
    )
    space.write("./cities.csv", "city,people\nRome,3\nOslo,2\n")
    space.build()
    assert space.read("all.txt") == "Rome,3\nOslo,2\n"
    space.write("./cities.csv", "city,people\nRome,3\nOslo,2\nBonn,1\n")
    space.build()
    assert space.ran == ["all.txt", "fits/Bonn.txt"]
    assert "Oslo" in space.build("fits/Osl.txt", code=2)


def test_each_ranges_over_the_source_files_that_find_sees(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("counts/{name}.txt", raw="./images/{name}.tif", run=sh("wc -c < {raw} > {out}"))
        rule("all.txt", n=each("counts/{name}.txt", name=find("./images/{name}.tif")), run=sh("cat {n} > {out}"))
        rule("direct.json", images=find("./images/{name}.tif"), run=py("src/direct.py:names"))
        """,
    )
    space.write("src/direct.py", "def names(images):\n    return {name: path.name for name, path in images.items()}\n")
    space.write("./images/a.tif", "1")
    space.write("./images/b.tif", "22")
    space.write("./images/notes.txt", "no image")
    space.build()
    assert space.read("all.txt") == "1\n2\n"
    assert space.json("direct.json") == {"a": "a.tif", "b": "b.tif"}
    space.write("./images/c.tif", "333")
    space.build()
    assert space.ran == ["all.txt", "counts/c.txt", "direct.json"]
    space.path("./images/a.tif").unlink()
    space.build()
    assert space.read("all.txt") == "2\n3\n" and not space.exists("counts/a.txt")


def test_glob_takes_the_files_beside_the_script(space: Space) -> None:
    space.write("script.py", 'rule("all.txt", settings=glob("./*.toml"), run=sh("cat {settings} > {out}"))')
    space.write("./b.toml", "b = 1\n")
    space.write("./a.toml", "a = 1\n")
    space.write("./c.ini", "c = 1\n")
    space.build()
    assert space.read("all.txt") == "a = 1\nb = 1\n"
    space.write("./aa.toml", "aa = 1\n")
    space.build()
    assert space.read("all.txt") == "a = 1\naa = 1\nb = 1\n"
    space.write("./c.ini", "c = 2\n")
    space.build()
    assert space.ran == []


def test_a_plan_sees_targets_by_every_way_of_reading(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("data/raw.csv", run=sh("printf 'name,n\\nx,3\\n' > {out}"))
        rule("data/word.txt", run=sh("printf hello > {out}"))
        rule("data/number.json", run=sh("echo 42 > {out}"))
        rule("data/folder/", run=sh("touch {out}/b.dat {out}/a.dat"))

        @plan("seen.json")
        def seen():
            return step(needed=need("data/raw.csv"), run=py("src/seen.py:write", rows=read_csv("data/raw.csv"),
                text=read_text("data/word.txt"), numbers=read_json(["data/number.json", "data/number.json"]),
                names=listdir("data/folder/"), city=env("STORY_CITY", "nowhere"), beside=listdir("./")))
        """,
    )
    space.write(
        "src/seen.py",
        """
        def write(needed, rows, text, numbers, names, city, beside):
            return dict(locals(), needed=str(needed))
        """,
    )
    space.build("seen.json")
    assert space.json("seen.json") == {
        "needed": "data/raw.csv",
        "rows": [{"name": "x", "n": "3"}],
        "text": "hello",
        "numbers": [42, 42],
        "names": ["a.dat", "b.dat"],
        "city": "nowhere",
        "beside": ["script.py"],
    }
    space.build("seen.json", env={"STORY_CITY": "Oslo"})
    assert space.ran == ["seen.json"] and space.json("seen.json")["city"] == "Oslo"
    space.build("seen.json")
    assert space.ran == [] and space.json("seen.json")["city"] == "nowhere"


def test_each_over_a_list_written_in_the_rule(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("{size}/{kind}.txt", run=sh("echo {size} {kind} > {out}"))
        rule("all.txt", parts=each("{size}/{kind}.txt", size=[10, 2], kind=["b", "a"]), run=sh("cat {parts} > {out}"))
        """,
    )
    space.build()
    assert space.read("all.txt") == "10 b\n10 a\n2 b\n2 a\n"
