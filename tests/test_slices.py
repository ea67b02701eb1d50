"""Slices: `each` yields exactly the keys that slices accept, and one element's file knows nothing of the others."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labmake.data.slices import elements, keys, no_such_key, slice_place, split_slice
from labmake.errors import NoSuchKey, RuleError

KEY = st.text(st.characters(exclude_characters="/\0\n\r", codec="utf-8"), min_size=1, max_size=40)
KEYS = KEY.filter(lambda key: key not in (".", ".."))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
CELLS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


def table(rows):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def rows_of(data):
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_an_object_is_sliced_by_its_keys_in_the_files_order():
    data = b'{"b": {"y": 1, "x": [2.50, "\xc3\xa9"]}, "a": 3}'
    assert elements("folds.json", data) == {"b": '{"x":[2.5,"é"],"y":1}\n'.encode(), "a": b"3\n"}


def test_a_list_of_scalars_is_sliced_by_its_values():
    assert elements("a.json", b'["x y", 1, 2.5, true, null]') == {
        "x y": b'"x y"\n',
        "1": b"1\n",
        "2.5": b"2.5\n",
        "true": b"true\n",
        "null": b"null\n",
    }


def test_a_list_of_objects_or_lists_is_sliced_by_index():
    assert elements("a.json", b'[{"k": 1}, [2]]') == {"0": b'{"k":1}\n', "1": b"[2]\n"}


def test_a_table_is_sliced_by_its_first_column_with_the_header_kept():
    data = b'\xef\xbb\xbfid,text\r\n7,"a ""b"", c"\r\n\r\n8,"two\nlines"\r\n'
    assert elements("t.csv", data) == {"7": b'id,text\n7,"a ""b"", c"\n', "8": b'id,text\n8,"two\nlines"\n'}
    assert elements("t.tsv", b"id\tx\na\t1,2\n") == {"a": b"id\tx\na\t1,2\n"}


def test_files_without_elements_have_no_keys():
    assert keys("a.json", b"[]") == keys("a.json", b"{}") == keys("t.csv", b"id,x\n") == []


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_each_key_of_an_object_is_accepted_and_its_slice_holds_its_value(value):
    data = json.dumps(value).encode()
    found = elements("x.json", data)
    assert keys("x.json", data) == list(value)
    assert {key: json.loads(text) for key, text in found.items()} == value


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=6), st.data())
def test_a_slice_of_an_object_does_not_depend_on_other_elements(value, data):
    key = data.draw(st.sampled_from(list(value)))
    alone = elements("x.json", json.dumps({key: value[key]}, indent=2).encode())[key]
    assert elements("x.json", json.dumps(value).encode())[key] == alone


@given(st.dictionaries(KEYS, CELLS, min_size=1, max_size=6), CELLS, st.sampled_from(["x.csv"]))
def test_a_slice_of_a_table_does_not_depend_on_other_rows_and_keeps_its_cells(cells, title, name):
    header = ["key", title]
    found = elements(name, table([header, *cells.items()]))
    assert list(found) == list(cells)
    for key, cell in cells.items():
        assert found[key] == elements(name, table([header, (key, cell)]))[key]
        assert rows_of(found[key]) == [header, [key, cell]]
        assert list(elements(name, found[key])) == [key]


@pytest.mark.parametrize("key", ["a/b", "", ".", "..", "a\nb", "a\rb", "a\0b", "\ud800", "x" * 250])
def test_a_key_that_cannot_name_a_file_is_an_error(key):
    with pytest.raises(RuleError, match="cannot be part of a path"):
        elements("data/folds.json", json.dumps({key: 1, "good": 2}).encode())


def test_a_key_of_a_table_is_checked_with_its_line():
    with pytest.raises(RuleError, match=r"t\.csv:3"):
        elements("t.csv", b"id,x\n1,2\na/b,3\n")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b'{"a": 1, "a": 2}'),
        ("a.json", b'["1", 1]'),
        ("a.csv", b"id\n1\n1\n"),
        ("a.json", b'{"k": {"a": 1, "a": 1}}'),
    ],
)
def test_a_duplicate_key_is_an_error(name, data):
    with pytest.raises(RuleError, match="twice"):
        elements(name, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b""),
        ("a.json", b"3"),
        ("a.json", b'[1, {"a": 2}]'),
        ("a.json", b"{"),
        ("a.json", b'{"a": "\\ud800"}'),
        ("a.csv", b""),
        ("a.csv", b"id,x\n1\n"),
    ],
)
def test_what_cannot_be_sliced_is_an_error_that_names_the_file(name, data):
    with pytest.raises(RuleError, match=name):
        elements(name, data)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("data/folds.json#3", ("data/folds.json", "3")),
        ("data/t.csv#a#b", ("data/t.csv", "a#b")),
        ("data/a#b.tsv#k", ("data/a#b.tsv", "k")),
        ("data/x.json#y.json#z", ("data/x.json", "y.json#z")),
        ("data/folds.json", None),
        ("data/folds#3.json", None),
        ("data/x.parquet#3", None),
    ],
)
def test_a_path_is_split_at_the_first_hash_behind_a_sliceable_suffix(path, parts):
    assert split_slice(path) == parts


def test_a_slice_lies_beside_its_file_under_the_files_suffix():
    assert slice_place("data/folds.json", "3") == "data/folds#3.json"
    assert split_slice(slice_place("data/folds.json", "3")) is None


def test_a_missing_number_is_told_with_its_neighbours():
    error = no_such_key("data/folds.json", "5", [str(n) for n in range(5)])
    assert isinstance(error, NoSuchKey)
    assert dict(error.facts) == {"asked": "data/folds.json#5", "keys": "5, from 0 to 4", "nearest": "4, 3, 2"}


def test_a_misspelt_key_is_told_with_what_is_written_alike():
    error = no_such_key("data/t.csv", "ridg", ["lasso", "ridge", "ols"])
    assert dict(error.facts)["nearest"] == "ridge"
    assert "add it" not in str(error) and "data/t.csv#ridge" in error.todo[0]


def test_a_key_of_an_empty_file_is_told_so():
    assert "empty" in no_such_key("data/t.csv", "a", []).todo[0]
