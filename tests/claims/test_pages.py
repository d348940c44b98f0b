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
