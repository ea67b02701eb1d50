"""Results are written and inputs loaded by type and suffix; the same value gives the same bytes in every process."""

import datetime
import gzip
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pandas
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labmake.errors import RuleError
from labmake.formats import load, loadable, read_csv, read_json, write

TABLES = ["x.csv", "x.csv.gz", "x.tsv", "x.tsv.gz", "x.json", "x.json.gz", "x.jsonl", "x.parquet", "x.feather", "x.pkl"]


def figure():
    from matplotlib.figure import Figure

    drawn = Figure()
    axes = drawn.subplots()
    axes.plot([1, 2, 3], label="line")
    axes.legend()
    return drawn


# Tables


@pytest.mark.parametrize("name", TABLES)
def test_a_pandas_table_comes_back_as_it_was(tmp_path, name):
    table = pandas.DataFrame({"a": [1, 2], "b": [0.1 + 0.2, 1e-300], "c": ["x, y", 'é "q"\nz']})
    write(table, tmp_path / name)
    pandas.testing.assert_frame_equal(load(tmp_path / name, pandas.DataFrame), table, check_exact=True)


@pytest.mark.parametrize("name", TABLES)
def test_a_polars_table_comes_back_as_it_was(tmp_path, name):
    table = polars.DataFrame({"a": [1, 2], "b": [0.1 + 0.2, 1e-300], "c": ["x, y", 'é "q"']})
    write(table, tmp_path / name)
    assert load(tmp_path / name, polars.DataFrame).equals(table)


def test_lazy_polars_tables_and_series_are_written_as_tables(tmp_path):
    write(polars.LazyFrame({"a": [1]}), tmp_path / "lazy.csv")
    write(polars.Series("s", [1, 2]), tmp_path / "series.csv")
    assert (tmp_path / "lazy.csv").read_text() == "a\n1\n"
    assert (tmp_path / "series.csv").read_text() == "s\n1\n2\n"


def test_the_index_is_written_only_if_it_says_something(tmp_path):
    table = pandas.DataFrame({"x": [1, 2]})
    write(table, tmp_path / "default.csv")
    write(table.set_index(pandas.Index(["a", "b"], name="id")), tmp_path / "named.csv")
    assert (tmp_path / "default.csv").read_bytes() == b"x\n1\n2\n"
    assert (tmp_path / "named.csv").read_bytes() == b"id,x\na,1\nb,2\n"


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.parquet", "x.feather"])
def test_a_pandas_series_keeps_its_index(tmp_path, name):
    series = pandas.Series([1.5, 2.5], index=pandas.Index(["a", "b"], name="id"), name="v")
    write(series, tmp_path / name)
    loaded = load(tmp_path / name, pandas.Series)
    assert loaded.to_dict() == {"a": 1.5, "b": 2.5}


def test_missing_values_and_dates_in_a_table_are_null_and_iso_in_json(tmp_path):
    table = pandas.DataFrame({"t": [pandas.Timestamp("2023-10-07"), pandas.NaT], "x": [1.5, None]})
    write(table, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == [
        {"t": "2023-10-07T00:00:00", "x": 1.5},
        {"t": None, "x": None},
    ]


def test_a_csv_with_two_columns_of_values_is_no_series(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(RuleError, match="one series"):
        load(tmp_path / "x.csv", pandas.Series)


# Arrays


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.tsv.gz", "x.json", "x.pkl"])
@pytest.mark.parametrize("array", [numpy.array([[0.1 + 0.2, 2], [3, 4]]), numpy.array([1.5, 2.5])])
def test_an_array_comes_back_as_it_was(tmp_path, name, array):
    write(array, tmp_path / name)
    numpy.testing.assert_array_equal(load(tmp_path / name, numpy.ndarray), array)


def test_an_npz_is_a_dict_of_arrays_which_numpy_reads(tmp_path):
    write({"a": numpy.arange(3), "b": [1.5]}, tmp_path / "x.npz")
    loaded = load(tmp_path / "x.npz", dict)
    assert loaded["a"].tolist() == [0, 1, 2] and numpy.load(tmp_path / "x.npz")["b"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (numpy.zeros((2, 2, 2)), "x.csv"),
        (numpy.array([object()]), "x.npy"),
        (numpy.ma.array([1, 2], mask=[0, 1]), "x.npy"),
    ],
)
def test_an_array_that_the_format_would_change_is_an_error(tmp_path, array, name):
    with pytest.raises(RuleError):
        write(array, tmp_path / name)


# JSON, text, objects


def test_json_keeps_the_order_and_converts_numpy_dates_and_paths(tmp_path):
    value = {
        "z": numpy.float32(0.5),
        "a": numpy.arange(2),
        "b": numpy.bool_(True),
        3: (None, math.nan),
        "day": datetime.date(2023, 10, 7),
        "ns": numpy.datetime64("2023-10-07T01:00", "ns"),
        "path": Path("a/b"),
        "long": numpy.longdouble(2),
        "gone": pandas.NA,
    }
    write(value, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    assert text.startswith('{\n "z": 0.5,') and text.endswith("}\n")
    assert json.loads(text) == {
        "z": 0.5,
        "a": [0, 1],
        "b": True,
        "3": [None, None],
        "day": "2023-10-07",
        "ns": "2023-10-07T01:00:00",
        "path": "a/b",
        "long": 2.0,
        "gone": None,
    }


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"m": {"auc": math.inf}}, "m.auc"),
        ({"m": [1, {2}]}, r"m\[1\]"),
        ({"m": {("a", 1): 2}}, "in  m"),
        ({"m": {1: 0, "1": 0}}, "in  m"),
    ],
)
def test_what_json_cannot_hold_is_an_error_that_says_where(tmp_path, value, place):
    with pytest.raises(RuleError, match=place):
        write(value, tmp_path / "x.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=JSON)
def test_any_json_value_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.json"
    if not isinstance(value, str):
        write(value, path)
        assert read_json(path.read_bytes(), "any.json") == value


def test_text_goes_to_text_formats_as_it_is(tmp_path):
    for name in ("x.txt", "x.md", "x.tex", "x.html"):
        write("a\r\nβ", tmp_path / name)
        assert (tmp_path / name).read_bytes() == "a\r\nβ".encode()
        assert load(tmp_path / name, str) == "a\r\nβ"


def test_text_for_a_json_file_must_be_json(tmp_path):
    write('{"a": 1}', tmp_path / "x.json")
    assert load(tmp_path / "x.json", dict) == {"a": 1}
    with pytest.raises(RuleError, match="not JSON"):
        write("hello", tmp_path / "x.json")


def test_numbers_come_back_from_json_and_text(tmp_path):
    for value in (3, 2.5, True):
        for name in ("x.json", "x.txt"):
            write(value, tmp_path / name)
            assert load(tmp_path / name, type(value)) == value
    write(3, tmp_path / "x.json")
    assert type(load(tmp_path / "x.json", float)) is float


def test_lists_go_to_lines_and_lists_of_dicts_to_tables(tmp_path):
    rows = [{"a": "1", "b": "x,y"}, {"a": "2", "b": ""}]
    for name in ("x.jsonl", "x.csv", "x.tsv", "x.csv.gz"):
        write(rows, tmp_path / name)
        assert load(tmp_path / name, list) == rows
    with pytest.raises(RuleError, match="same keys"):
        write([{"a": 1}, {"b": 1}], tmp_path / "y.csv")


def test_bytes_go_anywhere_and_come_back(tmp_path):
    write(b"\x00\xff", tmp_path / "x.png")
    assert load(tmp_path / "x.png", bytes) == b"\x00\xff"


def test_any_object_can_be_pickled(tmp_path):
    write({1, 2}, tmp_path / "x.pkl")
    assert pickle.loads((tmp_path / "x.pkl").read_bytes()) == {1, 2}


def test_toml_is_loaded_as_a_dict(tmp_path):
    (tmp_path / "x.toml").write_text("[a]\nb = 1\n")
    assert load(tmp_path / "x.toml", dict) == {"a": {"b": 1}}


# Figures


def test_a_figure_is_saved_without_time_and_version_and_closed(tmp_path):
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots()
    for suffix in ("svg", "pdf", "png"):
        write(drawn, tmp_path / f"x.{suffix}")
        data = (tmp_path / f"x.{suffix}").read_bytes()
        assert data and b"dc:date" not in data and b"CreationDate" not in data and b"matplotlib.org" not in data
    assert not pyplot.fignum_exists(drawn.number)
    write(axes, tmp_path / "axes.svg")
    assert (tmp_path / "axes.svg").read_bytes() == (tmp_path / "x.svg").read_bytes()


def test_drawings_of_other_libraries_are_known_by_their_methods(tmp_path):
    class Plotly:
        def write_html(self, path, div_id):
            Path(path).write_text(div_id)

        def write_image(self, path):
            Path(path).write_text("image")

    class Altair:
        def save(self, path):
            Path(path).write_text("saved")

    class Grid:
        def __init__(self):
            self.figure = figure()

    write(Plotly(), tmp_path / "p.html")
    write(Plotly(), tmp_path / "p.svg")
    write(Altair(), tmp_path / "a.html")
    write(Grid(), tmp_path / "g.svg")
    assert [(tmp_path / name).read_text() for name in ("p.html", "p.svg", "a.html")] == ["figure", "image", "saved"]
    assert "<svg" in (tmp_path / "g.svg").read_text()


# What does not fit


@pytest.mark.parametrize(
    ("value", "name", "told"),
    [
        (figure, "x.csv", ".svg .png .pdf"),
        (lambda: pandas.DataFrame(), "x.svg", ".csv .tsv"),
        (lambda: {"a": 1}, "x.csv", ".json .npz"),
        (lambda: "text", "x.parquet", "any suffix of text"),
        (lambda: {"a": 1}, "x", "file without suffix"),
        (lambda: pandas.DataFrame({"a": [1]}), "x.parquet.gz", r"\.parquet\.gz"),
        (object, "x.json", "an object of type object cannot"),
    ],
)
def test_a_type_that_does_not_fit_the_suffix_is_told_where_it_goes(tmp_path, value, name, told):
    with pytest.raises(RuleError, match=told):
        write(value(), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_annotation_that_does_not_fit_the_suffix_is_told_what_does(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.png").write_text("")
    with pytest.raises(RuleError, match=r"numpy.ndarray comes from +\.npy"):
        load(tmp_path / "x.png", numpy.ndarray)
    with pytest.raises(RuleError, match=r"\.png loads as +bytes, Path"):
        load(tmp_path / "x.png", str)
    with pytest.raises(RuleError, match=r"holds +dict"):
        load(tmp_path / "x.json", list)
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(RuleError, match=r"could not be loaded as pandas\.DataFrame"):
        load(tmp_path / "x.parquet", pandas.DataFrame)


def test_a_csv_keeps_the_last_digit_of_every_float(tmp_path):
    values = numpy.random.default_rng(1).normal(size=2000) * 10.0 ** numpy.arange(-10, 10).repeat(100)
    write(pandas.DataFrame({"x": values}), tmp_path / "x.csv")
    numpy.testing.assert_array_equal(load(tmp_path / "x.csv", pandas.DataFrame)["x"], values)


@pytest.mark.parametrize(
    "annotation", [None, Path, "Path", "pathlib.Path", polars.LazyFrame, "Model", int | str, object]
)
def test_without_a_known_annotation_the_path_is_passed(tmp_path, annotation):
    assert load(tmp_path / "x.csv", annotation) == tmp_path / "x.csv"
    assert not loadable(annotation)


@pytest.mark.parametrize(
    "annotation", ["pandas.DataFrame", "pd.DataFrame", pandas.DataFrame | None, "pandas.DataFrame | None"]
)
def test_annotations_may_be_text_or_optional(tmp_path, annotation):
    (tmp_path / "x.csv").write_text("a\n1\n")
    assert load(tmp_path / "x.csv", annotation)["a"].tolist() == [1]
    assert loadable(annotation)


@pytest.mark.parametrize("annotation", [dict[str, float], "dict[str, float]"])
def test_generic_annotations_load_as_what_they_are_of(tmp_path, annotation):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert load(tmp_path / "x.json", annotation) == {"a": 1}


# What plans read


def test_a_plan_reads_rows_as_text():
    assert read_csv(b'\xef\xbb\xbfa,b\r\n1,"x\ny"\r\n', "t.csv") == [{"a": "1", "b": "x\ny"}]
    assert read_csv(b"a\tb\n1,2\t3\n", "t.tsv") == [{"a": "1,2", "b": "3"}]
    assert read_csv(b"a\n" + b"x" * 200_000, "t.csv") == [{"a": "x" * 200_000}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "header"),
        (b"a,a\n1,2\n", "two columns"),
        (b"a,b\n1,2\n3\n", r"t\.csv:3"),
        (b'a,b\n1,"x\n', r"t\.csv:2"),
        (b'a,b\n1,"x"y\n', r"t\.csv:2"),
        (b"a,b\n1,\xff\n", r"t\.csv:2"),
    ],
)
def test_a_malformed_table_is_an_error_with_its_line(data, told):
    with pytest.raises(RuleError, match=told):
        read_csv(data, "t.csv")


@pytest.mark.parametrize(
    ("data", "told"),
    [(b'{"a": 1,\n "b": }', "m.json:2"), (b"", "m.json:1"), (b'{\n"a": "\xff"}', "m.json:2"), (b"[" * 200_000, "deep")],
)
def test_malformed_json_is_an_error_with_its_line(data, told):
    with pytest.raises(RuleError, match=told):
        read_json(data, "m.json")


def test_a_malformed_line_of_jsonl_is_told_by_its_number(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{"a":}\n')
    with pytest.raises(RuleError, match=r"x\.jsonl:3"):
        load(tmp_path / "x.jsonl", list)


# Processes

EVERYTHING = """
import sys
from pathlib import Path
import numpy, pandas, polars
from matplotlib.figure import Figure
from labmake.formats import write

folder = Path(sys.argv[1])
table = pandas.DataFrame({"a": range(1000), "b": [str(n) for n in range(1000)], "c": numpy.linspace(0, 1, 1000)})
for name in "x.csv x.csv.gz x.json x.json.gz x.jsonl x.parquet x.feather x.pkl".split():
    write(table, folder / f"pandas-{name}")
pieces = polars.concat([polars.DataFrame(part.to_dict("list")) for part in (table[:300], table[300:])])
for name in "x.csv x.csv.gz x.json x.parquet x.feather".split():
    write(pieces, folder / f"polars-{name}")
write({"a": numpy.arange(5), "b": numpy.eye(3)}, folder / "x.npz")
write(numpy.arange(5), folder / "x.npy")
for suffix in "svg pdf png".split():
    figure = Figure()
    axes = figure.subplots()
    axes.scatter([1, 2, 3], [3, 1, 2], c=[1, 2, 3], label="points")
    axes.fill_between([1, 2], [1, 2], hatch="/", clip_on=True)
    axes.set_title("α")
    axes.legend()
    write(figure, folder / f"x.{suffix}")
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    written = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "POLARS_MAX_THREADS": seed}
        environment.pop("SOURCE_DATE_EPOCH", None)
        subprocess.run([sys.executable, "-c", EVERYTHING, str(folder)], env=environment, check=True)
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert len(written[0]) == 18
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []


def test_archives_carry_no_time(tmp_path):
    write("x", tmp_path / "x.txt.gz")
    write({"a": numpy.arange(2)}, tmp_path / "x.npz")
    assert (tmp_path / "x.txt.gz").read_bytes()[3:8] == bytes(5)
    assert gzip.decompress((tmp_path / "x.txt.gz").read_bytes()) == b"x"
    assert {entry.date_time for entry in zipfile.ZipFile(tmp_path / "x.npz").infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_writing_and_reading_json_imports_no_library(tmp_path):
    program = """
import sys
from pathlib import Path
from labmake.formats import load, write
write({"a": [1, 2.5]}, Path(sys.argv[1]))
assert load(Path(sys.argv[1]), dict) == {"a": [1, 2.5]}
print(sorted({"numpy", "pandas", "polars", "matplotlib", "pyarrow"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "x.json")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
