"""What labmake reads in a document before rendering is what pandoc finds at rendering."""

from __future__ import annotations

import json
import subprocess
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labmake.documents.markdown import front_matter, line_of, references
from labmake.documents.pandoc import TEMPLATES, _pandoc, elements
from labmake.errors import RuleError


def pandoc_images(markdown: str) -> list[str]:
    command = [_pandoc(), "-f", "markdown", "-t", "json", "-L", str(TEMPLATES / "xref.lua")]
    tree = json.loads(subprocess.run(command, input=markdown.encode(), capture_output=True, check=True).stdout)
    return list(dict.fromkeys(unquote(one["c"][2][0]) for one in elements(tree["blocks"]) if one["t"] == "Image"))


PIECES = [
    "![a](figures/a.svg)",
    "![a *b* [c]](b.svg){#fig:x%d width=50%%}",
    '![a](c.svg "title")',
    "![a](<d e.svg>)",
    "![a](my file.svg)",
    "![a](per%%20cent.svg)",
    "![a](pa(r)en.svg)",
    "![a](under\\_score.svg)",
    "![a\nb](f.svg\n'title')",
    "![ref style][one]",
    "![One][]",
    "![one]",
    "[one]: g.svg\n\n",
    "[one]: <h i.svg> 'title'\n\n",
    "[two]: j.svg {width=3}\n\n",
    "![text][TWO]",
    "<img src='k.svg' alt='x'>",
    '<img alt="x"\n src="l.svg">\n\n',
    "[![in a link](m.svg)](https://example.org)",
    "x^[a note ![n](n.svg) in it]",
    "`![a](no1.svg)`",
    "\\![a](no2.svg)",
    "\n\n```\n![a](no3.svg)\n```\n\n",
    "\n\n~~~ {.r}\n![a](no4.svg)\n~~~\n\n",
    "<!-- ![a](no5.svg) -->",
    "\n\n    ![a](no6.svg)\n\n",
    "\n\n- item\n\n    ![in a list](o.svg)\n\n",
    "\n\n> ![in a quote](p.svg)\n\n",
    "\n\n| a |\n|---|\n| ![t](q.svg) |\n\n",
    "[a link](no7.svg)",
    "``![a](no8.svg) ` ``",
    "![a] (no9.svg)",
    "![outer ![inner](r.svg)](s.svg)",
]


@pytest.mark.parametrize("piece", PIECES)
def test_every_way_to_write_an_image_is_read_as_pandoc_reads_it(piece: str) -> None:
    text = "Text " + piece.replace("x%d", "x").replace("%%", "%") + "\n\n[one]: z.svg\n[two]: y.svg\n"
    assert sorted(references(text).images) == sorted(pandoc_images(text))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([*PIECES, " words ", "\n\n", "\n", "# Heading\n\n"]), max_size=7))
def test_documents_put_together_at_random_agree_with_pandoc(pieces: list[str]) -> None:
    text = "".join(piece.replace("x%d", f"x{n}").replace("%%", "%") for n, piece in enumerate(pieces)) + "\n"
    assert set(pandoc_images(text)) == set(references(text).images)


def test_the_bibliography_and_the_citation_style_are_files_of_the_document() -> None:
    text = "---\nbibliography: [a.bib, b.json]\ncsl: ieee.csl\n---\n\n![a](f.svg) ![a](https://example.org/x.png)\n"
    found = references(text)
    assert (found.images, found.bibliography) == (["f.svg"], ["a.bib", "b.json", "ieee.csl"])
    assert found.files == ["f.svg", "a.bib", "b.json", "ieee.csl"]


def test_front_matter_is_text_whatever_yaml_would_make_of_it() -> None:
    assert front_matter("---\ndate: 2023-10-07\nlang: no\n...\ntext", "r.md") == {"date": "2023-10-07", "lang": "no"}
    assert front_matter("no front matter\n---\n", "r.md") == {}
    assert front_matter("---\n---\n", "r.md") == {}


def test_broken_front_matter_is_told_with_its_line() -> None:
    with pytest.raises(RuleError) as caught:
        front_matter("---\nlang: en\ntitle: a: b\n---\n", "r.md")
    assert str(caught.value.where) == "r.md:3"


def test_the_line_of_a_label_is_the_one_outside_of_code() -> None:
    assert line_of("`@fig:x`\n\nsee @fig:x", "@fig:x") == 3
    assert line_of("nothing", "@fig:x") == 0
