"""A document and its results become one PDF and one page, the same bytes every time, or an error that says where."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labmake.documents.html import render_html
from labmake.documents.look import look_digest
from labmake.documents.markdown import references
from labmake.documents.pandoc import Document, ast
from labmake.documents.pdf import render_pdf, to_typst
from labmake.documents.render import render
from labmake.documents.values import expand, parse
from labmake.errors import RuleError

SOURCE = Path(__file__).parents[1] / "src"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="40"><rect width="90" height="40" fill="teal"/></svg>'
BIB = "@book{gelman2013, author={Gelman, Andrew}, title={Bayesian Data Analysis}, publisher={CRC Press}, year={2013}}\n"
REPORT = r"""---
title: Priors of {{ metrics.n | thousands }} returns
author:
  - name: Ada "O'Hara" Müller
    affiliation: Institute
date: 2023-10-07
bibliography: refs.bib
abstract: The AUC is {{ metrics.auc | round(2) }}.
---

# Results {#sec:results}

The AUC is {{ metrics.auc | round(3) }} [@gelman2013], see @fig:roc, @tbl:fits, @eq:loss and @sec:results.^[A note.]
Its $n={{ metrics.n | thousands }}$ and $p = {{ metrics.p | sci }}$, code `{{ metrics.auc }}`.

![The curve, AUC {{ metrics.auc | round(1) }}.](figures/a.svg){#fig:roc width=50%}

{{ fits | table("Folds.", digits=2, id="fits") }}

The loss is
$$ L = \sum_i \operatorname*{arg\,max}_x \bigl(x_i\bigr) $$ {#eq:loss}
as usual.

```python
x = "{{ untouched }}"
```

- one
- two
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A step folder with a report, its results and its files."""
    root = tmp_path / "step"
    (root / "figures").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "figures/a.svg").write_text(SVG)
    (root / "refs.bib").write_text(BIB)
    (root / "report.md").write_text(REPORT)
    (root / "data/metrics.json").write_text('{"auc": 0.93123, "n": 12345, "p": 0.0000123}')
    (root / "data/fits.csv").write_text("fold,auc\n1,0.911\n2,0.952\n")
    return root


VALUES = {"metrics": "data/metrics.json", "fits": "data/fits.csv"}


def step(root: Path, output: str) -> Path:
    request = root / "step.json"
    inputs = {"document": "report.md", "values": VALUES, "files": ["figures/a.svg", "refs.bib"]}
    outputs = {output: f"outputs/report.{output}"}
    request.write_text(json.dumps({"inputs": inputs, "parameters": {"look": "x"}, "outputs": outputs}))
    return request


def process(root: Path, output: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "LABMAKE_STEP": str(step(root, output)), **variables}
    command = [sys.executable, "-m", "labmake.documents.render"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("output", ["pdf", "html"])
def test_two_processes_in_other_places_and_languages_write_the_same_bytes(folder: Path, output: str) -> None:
    other = folder.parent / "quite" / "another place"
    other.parent.mkdir()
    first = process(folder, output, TZ="America/New_York", LANG="C", LC_ALL="C", HOME=str(folder.parent))
    made = (folder / f"outputs/report.{output}").read_bytes()
    (folder / f"outputs/report.{output}").unlink()
    folder.rename(other)
    second = process(other, output, TZ="Asia/Tokyo", LANG="de_DE.UTF-8", LC_ALL="C.UTF-8", SOURCE_DATE_EPOCH="1")
    assert (first.returncode, first.stderr, second.returncode, second.stderr) == (0, "", 0, "")
    assert made == (other / f"outputs/report.{output}").read_bytes()
    assert len(made) > 5000


def page(root: Path) -> str:
    assert render(root, "report.md", VALUES, {"html": "outputs/report.html"}) == []
    return (root / "outputs/report.html").read_text()


def typst_source(root: Path) -> str:
    text = expand(REPORT, "report.md", lambda name: parse(VALUES[name], (root / VALUES[name]).read_bytes()))
    source, warnings = to_typst(ast(Document("report.md", text, root)), "report")
    assert warnings == []
    return source.decode()


def test_the_numbers_the_table_and_the_numbering_arrive_in_the_pdf(folder: Path) -> None:
    source = typst_source(folder)
    for words in (
        "0.931",
        "12\u202f345 returns",
        "The AUC is 0.93.",
        "[0.91]",
        "Figure~1",
        "Table~1",
        "Equation~1",
        "Gelman",
    ):
        assert words in source
    assert 'numbering: _ => "(1)"' in source and "<eq:loss>" in source
    assert 'op("arg\u2006max", limits: #true)' in source, "arg max has its variable below"
    assert "O’Hara” Müller" in source and "year: 2023, month: 10, day: 7" in source


def test_numbers_filled_into_formulas_become_tex(folder: Path) -> None:
    assert re.search(r"1\.23 *\\times +10\^\{-5\}", page(folder))
    assert "n=12\\,345" in page(folder)


def test_the_page_needs_no_other_file_and_no_network(folder: Path) -> None:
    text = page(folder)
    assert re.findall(r'(?:src|href)="(?!data:|#|https://doi)[^"]*"', text) == []
    assert "<script" not in text
    assert '<meta name="author" content="Ada “O’Hara” Müller"' in text


def test_the_page_tells_where_numbers_and_figures_come_from(folder: Path) -> None:
    text = html.unescape(page(folder))
    assert '<span class="value" title="data/metrics.json: metrics.auc | round(3)">0.931</span>' in text
    assert 'data-source="figures/a.svg"' in text and 'title="figures/a.svg"' in text


def test_the_marks_of_values_leave_no_trace_anywhere_else(folder: Path) -> None:
    extra = (
        "\n# Round {{ metrics.n }}\n\n"
        "![c](figures/{{ 'a' }}.svg){#fig:{{ metrics.n }} width={{ 50 }}%}\n\n@fig:{{ metrics.n }}\n"
        "\n[link](https://example.org/{{ metrics.n }}) *{{ metrics.n }}* {{ metrics.n }}{{ metrics.n }}\n"
        "\n  a      b\n----- ------\n{{ metrics.n }}    2\n"
    )
    (folder / "report.md").write_text(REPORT + extra)
    marked = page(folder)
    plain_text = (folder / "report.md").read_text()
    plain = expand(plain_text, "report.md", lambda name: parse(VALUES[name], (folder / VALUES[name]).read_bytes()))
    render_html(plain, folder, folder / "plain.html", title_fallback="report")
    assert VALUES["metrics"] in marked
    assert re.sub(r'<span class="value"[^>]*>([^<]*)</span>', r"\1", marked) == (folder / "plain.html").read_text()
    assert not re.search("[\ue000-\uf8ff\U000f0000-\U000ffffd]", marked)


def refusal(root: Path, markdown: str, written: str = "") -> str:
    with pytest.raises(RuleError) as caught:
        render_pdf(markdown, root, root / "x.pdf", name="report.md", written=written)
    assert not (root / "x.pdf").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a\n\nsee @fig:nope", 3, "no figure"),
        ("`@tbl:x`\n\n[@tbl:x]", 3, "no table"),
        ("a $$x$$ {#eq:rate}\n\n@eq:rat", 3, "eq:rate"),
        ("$$x$$ {#eq:a}\n\n$$y$$ {#eq:a}", 1, "twice"),
        ("a\n\nas [@nobody2020] said", 3, "nobody2020"),
        ("---\nbibliography: refs.bib\n---\n\n@gelman2012 said", 5, "gelman2013"),
        ("---\nbibliography: none.bib\n---\n", 2, "none.bib"),
        ("a\n\n![x](figures/none.svg)", 3, "not there"),
        ("a\n\n![x](../a.svg)", 3, "outside"),
        ("a\n\n![x](https://example.org/a.svg)", 3, "web"),
        ("a\n\n$\\nosuch{x}$", 3, "nosuch"),
        ("a\n\n![x](data/fits.csv)", 3, "cannot"),
        ("---\ntitle: a: b\n---\n", 2, "quotes"),
    ],
)
def test_a_hole_in_a_document_is_an_error_with_its_line(folder: Path, text: str, line: int, words: str) -> None:
    said = refusal(folder, text)
    assert f"report.md:{line}\n" in said + "\n"
    assert words in said


def test_an_image_that_is_none_is_named(folder: Path) -> None:
    (folder / "figures/bad.png").write_text("no png")
    assert "figures/bad.png cannot be shown" in refusal(folder, "a\n\n![x](figures/bad.png)\n")


def test_errors_count_lines_before_values_were_filled_in(folder: Path) -> None:
    written = "{{ fits | table }}\n\nsee @fig:nope\n"
    assert "report.md:3" in refusal(folder, "\n| a |\n|--|\n| 1 |\n\n\n\nsee @fig:nope\n", written)


@pytest.mark.parametrize("text", ["---\nabstract: '![x](figures/a.svg)'\n---\n\ntext\n"])
def test_an_image_that_only_pandoc_sees_is_an_error(folder: Path, text: str) -> None:
    assert references(text).images == []
    assert "does not recognise" in refusal(folder, text)


def test_a_pdf_says_what_of_html_and_tex_it_does_not_show(folder: Path) -> None:
    text = "a <img src='figures/a.svg'> b<br>\n\n<table><tr><td>x</td></tr></table>\n\n\\newpage\n\n<!-- note -->\n"
    warnings = render_pdf(text, folder, folder / "x.pdf")
    assert [warning for warning in warnings if "<table>" in warning]
    assert not [warning for warning in warnings if "img" in warning or "newpage" in warning or "note" in warning]


def test_comments_for_coauthors_are_not_in_the_page(folder: Path) -> None:
    render_html("a <!-- secret --> b\n\n<!-- secret -->\n", folder, folder / "x.html")
    assert "secret" not in (folder / "x.html").read_text()


def test_words_follow_the_language_and_sections_may_go_unnumbered(folder: Path) -> None:
    text = "---\nlang: de\nnumbersections: false\n---\n\n# Eins\n\n"
    text += "![c](figures/a.svg){#fig:a}\n\n@fig:a und [siehe @fig:a]\n"
    render_html(text, folder, folder / "x.html")
    made = (folder / "x.html").read_text()
    assert ">Abbildung\u00a01</a> und (siehe <a" in made
    assert 'header-section-number">' not in made


def test_a_users_error_is_three_parts_and_exit_code_1_without_a_traceback(folder: Path) -> None:
    (folder / "report.md").write_text("ok\n\n{{ metrics.acu }}\n")
    done = process(folder, "pdf")
    assert done.returncode == 1
    assert "report.md:3" in done.stderr and "auc" in done.stderr and "Traceback" not in done.stderr


def test_the_look_is_one_digest_of_templates_and_tools() -> None:
    assert re.fullmatch("[0-9a-f]{64}", look_digest())
    assert look_digest() == look_digest()
