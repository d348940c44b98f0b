import re
from html.parser import HTMLParser

import pytest

from learning_geometry.claims.judge import judge
from learning_geometry.claims.pages import Drawn, markdown, webpage

from .conftest import ABOVE_CHANCE, ABOVE_OTHER, RISE, claim, settings, study

VOID = {"meta", "input"}
FIGURES = {"timeline": Drawn("figures/timeline.png", ("runs",)), "other": Drawn("figures/other.png", ("another",))}


@pytest.fixture
def ledger_and_studies(rising):
    planted = study(
        claim(ABOVE_CHANCE, ABOVE_OTHER, name="good", statement="It is <b>bold</b> & right.", figure="timeline"),
        claim(RISE, name="unheard", unit="model", figure="other"),
    )
    return judge({"runs": settings()}, rising(), (planted,)), (planted,)


class Balanced(HTMLParser):
    """Every element that is opened is closed, and in the right order."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "href" in attributes:
            self.links.append(attributes["href"])
        self.outside += [attributes[name] for name in ("src", "action", "onload") if name in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(ledger_and_studies):
    ledger, studies = ledger_and_studies
    page = webpage(ledger, FIGURES, studies)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == [] and parser.outside == []
    assert "http" not in page.replace('"http:", "https:"', "") and "@import" not in page
    assert parser.links == ["figures/timeline.png"] * 2
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page
    assert len(re.findall(r'<tr data-verdict="', page)) == len(ledger.table)
    assert "1 supported" in page and "1 inconclusive" in page and "0 not supported" in page


def test_markdown_groups_by_study_and_verdict(ledger_and_studies):
    ledger, studies = ledger_and_studies
    text = markdown(ledger, FIGURES, studies)
    positions = [text.index(word) for word in ("## A planted study", "✓ supported (1)", "? inconclusive (1)")]
    assert positions == sorted(positions)
    assert "Published: 2.5." in text and "[Figure](figures/timeline.png)" in text
    assert "fewer than 5 units" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {8}


HOSTILE = "a|b `c` <script>x</script> [d](e) *f* &lt; $g$ ~h~ \\\\ _i_\n| new | row |\n# head\x00\u2028\u202e  "


@pytest.fixture
def hostile():
    ledger = judge(
        {"runs": settings()}, [], (study(claim(ABOVE_CHANCE, name="good", statement=HOSTILE, figure="timeline")),)
    )
    text = dict.fromkeys(("source", "published", "experiment", "scale", "unit", "null", "rule"), HOSTILE)
    notes = ledger.notes.assign(outcome=HOSTILE, observed=HOSTILE, why=HOSTILE)
    return ledger._replace(table=ledger.table.assign(**text), notes=notes), (study(claim(ABOVE_CHANCE, name="good")),)


def test_markdown_shows_every_text_as_it_is(hostile):
    ledger, studies = hostile
    text = markdown(ledger, {}, studies)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(ledger.table)
    # cells, cut where a pipe is not escaped
    assert {len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) - 1 for line in lines} == {8}
    without_code = re.sub(r"`` .*? ``|\[95 %\]", "", text.partition("## A planted study")[2])
    assert not re.search(r"(?<!\\)[<`\[$&~]", without_code)
    assert "# head" in text and not re.search(r"^# head", text, re.MULTILINE)
    assert all(line.isprintable() for line in text.splitlines())
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 3


def test_the_page_shows_every_text_as_it_is(hostile):
    ledger, studies = hostile
    page = webpage(ledger, {}, studies)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == [] and parser.outside == []
    assert "<script>x" not in page and "&lt;script&gt;x" in page and "&amp;lt;" in page
    assert "\x00" not in page and "\u202e" not in page


def test_links_to_figures_are_encoded(ledger_and_studies):
    ledger, studies = ledger_and_studies
    figures = {"timeline": Drawn('my figures/(a) "b".png', ("runs",))}
    assert "[Figure](my%20figures/%28a%29%20%22b%22.png)" in markdown(ledger, figures, studies)
    assert 'href="my%20figures/%28a%29%20%22b%22.png"' in webpage(ledger, figures, studies)
