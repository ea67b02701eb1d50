"""Values are filled in where they are asked for, and nothing else in a document changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labmake.documents.filters import rounded, scientific, thousands
from labmake.documents.values import expand, names, parse
from labmake.errors import NoRule, RuleError

METRICS = {"auc": 0.93123, "n": 12345, "items": 3, "bad": float("nan"), "none": None, "fit": {"1": {"auc": 0.5}}}
ROWS = parse("r.csv", b"model,auc,id\ngbm,0.930,007\nlinear,9.5,\nlasso,10,3\n")


def value(name: str) -> object:
    return {"metrics": METRICS, "rows": ROWS}[name]


def fill(text: str) -> str:
    return expand(text, "report.md", value)


def refusal(text: str) -> str:
    with pytest.raises(RuleError) as caught:
        fill(text)
    return str(caught.value)


def test_a_number_of_a_result_file_stands_in_the_sentence() -> None:
    assert fill("AUC {{ metrics.auc | round(3) }} of {{ metrics.n | thousands }}.") == "AUC 0.931 of 12\u202f345."


def test_a_key_wins_over_a_method_of_the_same_name() -> None:
    assert fill("{{ metrics.items }}") == "3"


def test_an_integer_finds_the_key_that_json_writes_as_text() -> None:
    assert fill("{% for k in range(1, 2) %}{{ metrics.fit[k].auc }}{% endfor %}") == "0.5"


def test_a_leading_minus_is_a_sign_and_not_jinjas_whitespace_control() -> None:
    assert fill("a {{ -metrics.n }}") == "a -12345"


def test_a_number_in_a_csv_counts_as_a_number_and_prints_as_written() -> None:
    assert fill("{{ rows[0].auc }} {{ rows[0].id }} {{ rows[0].auc | round(2) }}") == "0.930 007 0.93"
    assert fill("{{ rows | map(attribute='auc') | max }}") == "10"
    assert fill("{{ rows[1].auc > rows[0].auc }} {{ rows[0].auc * 2 }}") == "True 1.86"


def test_one_row_is_named_by_its_columns() -> None:
    assert fill("{{ (rows | row(model='gbm')).auc }} {{ (rows | row(id='007')).model }}") == "0.930 gbm"
    assert "gbm, linear, lasso" in refusal("{{ (rows | row(model='x')).auc }}")


@pytest.mark.parametrize(
    "text",
    [
        r"$\frac{{a}}{{b}} x^{{2}}$ and \textbf{{x}}",
        "![a](figures/a.svg){#fig:x width=50%}",
        "$$ x $$ {#eq:x}\n\n: caption {#tbl:x}",
        "`{{ nothing }}` and ``a ` {{ nothing }}``",
        "```python\n{{ nothing }}\n{% if %}\n```\n",
        "~~~\n{{ nothing }}\n~~~\n",
        "<!-- {{ nothing }} -->",
        "# Heading {#sec:x}\n\n50% {.value}\n",
    ],
)
def test_tex_labels_code_and_comments_stay_as_they_are(text: str) -> None:
    assert fill(text) == text


@given(st.text(st.sampled_from("ab `~\n{}#$%|\\<!->"), max_size=60))
def test_a_document_without_a_spaced_brace_is_never_changed(text: str) -> None:
    if not any(sign in text for sign in ("{{ ", "{% ", "{{#", "{{a", "{{b")):
        assert fill(text) == text


@pytest.mark.parametrize(
    "before", ["", "a\n\nb\n", "```\n{{ x }}\n\n\n```\n", "`a\nb` c\n", "{% if 1 %}\nx\n{% endif %}\n"]
)
def test_errors_name_the_line_an_editor_shows(before: str) -> None:
    line = before.count("\n") + 1
    for wrong in (
        "{{ metrics.acu }}",
        "{{ metrics.auc + }}",
        "{{ metrics.auc | rund }}",
        "{{ metrics.bad }}",
        "{{metrics.auc}}",
    ):
        assert f"report.md:{line}\n" in refusal(f"{before}{wrong}\nmore")


def test_code_after_an_expanded_loop_keeps_its_lines_apart() -> None:
    text = "{% for x in range(2) %}\n```\ncode\n```\n\n{% endfor %}\nend\n"
    assert fill(text) == "```\ncode\n```\n\n" * 2 + "end\n"


def test_a_missing_key_is_answered_with_the_nearest_ones() -> None:
    assert "auc" in refusal("{{ metrics.acu }}").split("nearest", 1)[1]
    assert "keys" in refusal("{{ metrics.zzz }}")
    assert fill("{{ metrics.zzz | default('none') }}") == "none"


@pytest.mark.parametrize(
    "hole", ["metrics.none", "metrics.bad", "metrics.bad | round(2)", "rows[1].id", "metrics", "rows"]
)
def test_a_hole_or_a_whole_table_in_a_sentence_is_an_error(hole: str) -> None:
    assert "report.md:1" in refusal(f"x {{{{ {hole} }}}}")


class Suspended(BaseException):
    """As the engine raises it, when a value is not made yet."""


@pytest.mark.parametrize("error", [Suspended(), NoRule("nothing makes it"), KeyError("x"), LookupError("y")])
@pytest.mark.parametrize(
    "use", ["{{ x.y }}", "{{ x is defined }}", "{{ x | default(1) }}", "{% for r in x %}{% endfor %}"]
)
def test_what_the_callback_raises_passes_through_untouched(error: BaseException, use: str) -> None:
    def ask(name: str) -> object:
        raise error

    with pytest.raises(type(error)) as caught:
        expand(use, "report.md", ask)
    assert caught.value is error


def test_each_name_is_asked_for_once() -> None:
    asked: list[str] = []

    def ask(name: str) -> object:
        asked.append(name)
        return value(name)

    expand("{{ metrics.n }} {{ metrics.auc }} {% if metrics.n < 0 %}{{ rows[0].auc }}{% endif %}", "report.md", ask)
    assert sorted(asked) == ["metrics", "rows"]


def test_names_are_known_without_any_value() -> None:
    text = "{{ metrics.n }} {% set a = rows %}{{ a }} `{{ code }}` {% for i in range(3) %}{{ i }}{% endfor %} {{# c #}}"
    assert names(text) == ["metrics", "rows"]


def test_a_table_aligns_numbers_rounds_them_and_takes_text_literally() -> None:
    rows = [{"name": "a|b *x*", "score": -0.456, "n": 10}, {"name": "c", "score": None, "n": 2}]
    text = expand(
        "{{ t | table('A caption', digits=2, id='x', headers={'score': '$R^2$'}) }}", "r.md", lambda name: rows
    )
    assert text == (
        "\n| name | $R^2$ | n |\n| :-- | --: | --: |\n"
        "| a\\|b \\*x\\* | −0.46 | 10 |\n| c | – | 2 |\n\n: A caption {#tbl:x}\n"
    )
    assert "columns" in refusal("{{ rows | table(columns=['auc', 'nope']) }}")


@given(st.floats(-1e12, 1e12), st.integers(0, 6))
def test_rounding_keeps_the_digits_and_never_writes_minus_zero(number: float, digits: int) -> None:
    text = rounded(number, digits)
    assert len(text.partition(".")[2]) == digits
    assert abs(float(text) - number) <= 0.5 * 10**-digits + abs(number) * 1e-15
    assert not (text.startswith("-") and float(text) == 0)


@given(st.integers())
def test_thousands_loses_no_digit(number: int) -> None:
    assert int(thousands(number).replace("\u202f", "")) == number


def test_powers_of_ten_are_raised() -> None:
    assert scientific(0.0000123) == "1.23\u00a0×\u00a010⁻⁵"


@pytest.mark.parametrize(("path", "data"), [("a.json", b"{"), ("a.parquet", b""), ("a.csv", b"\xff"), ("a.toml", b"=")])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(path: str, data: bytes) -> None:
    with pytest.raises(RuleError, match=path):
        parse(path, data)
