"""The ledger for reading: a Markdown page, and an HTML page with a table that sorts and searches by itself."""

import html
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd

from learning_geometry.claims.claim import Study
from learning_geometry.claims.judge import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Ledger
from learning_geometry.claims.studies import STUDIES

ORDER = (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)
MARKS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?"}

READING = (
    "n counts units (seeds, layers, prompts or models, as the table says); intervals are 95 %.",
    "A claim has one row per null, and is supported if every row holds with n ≥ 5, not supported if one fails, "
    "and inconclusive otherwise: too few units, an interval that decides neither way, a difference below the "
    "numerical floor, training too short, or nothing measured.",
    "Estimates are means over units; where some unit did not reach the event, the share of the others that show it.",
    "In rules, t is the step at which the out-of-distribution error falls below the claim's threshold, run by run.",
    "Holm's correction runs over all claims of a study.",
    "A language model is one run. A claim that counts its layers, or prompts, is about this model with these texts or "
    "prompts alone, and takes layers to be independent; where prompts count, p values take the estimate to be normal.",
    "Where models count, entries of the config with the same weights, source or set_up are one model, and their mean.",
)


class Drawn(NamedTuple):
    """A figure of this run: its path relative to the page, and the experiments it shows."""

    path: str
    experiments: tuple[str, ...]


Figures = Mapping[str, Drawn]


def markdown(ledger: Ledger, figures: Figures, studies: tuple[Study, ...] = STUDIES) -> str:
    """Return the ledger as Markdown, grouped by study and verdict.

    Args:
        ledger: as ``judge`` returns it.
        figures: the figures that exist, by name.
        studies: the claims' studies, for titles and figures.
    """
    lines = ["# Claims", "", *(f"- {line}" for line in READING)]
    for study in studies:
        rows = _joined(ledger, figures, studies)
        rows = rows[rows["study"] == study.name]
        if rows.empty:
            continue
        lines += ["", f"## {_text(study.title)}"]
        for verdict in ORDER:
            chosen = rows[rows["verdict"] == verdict]
            if chosen.empty:
                continue
            number = chosen[["claim", "experiment"]].drop_duplicates().shape[0]
            lines += ["", f"### {MARKS[verdict]} {verdict} ({number})"]
            for (_, experiment), claim in chosen.groupby(["claim", "experiment"], sort=False):
                lines += _claim_lines(str(experiment), claim)
    return "\n".join(lines) + "\n"


def _claim_lines(experiment: str, rows: pd.DataFrame) -> list[str]:
    first = rows.iloc[0]
    shown = f" [Figure]({quote(first['figure'])})." if first["figure"] else ""
    published = f" Published: {_text(first['published'])}." if first["published"] else ""
    where = f"{_code(experiment)}; " if experiment else ""
    lines = [
        "",
        f"**{_text(first['statement'])}** {where}{_text(first['scale'])}.{published} "
        f"Source: {_text(first['source'])}.{shown}",
    ]
    if first["why"]:
        lines += ["", f"*Why: {_text(first['why'])}.*"]
    lines += ["", "| null | estimate [95 %] | null's range | floor | n | row | rule |", "|---|---|---|---|---|---|---|"]
    for _, row in rows.iterrows():
        cells = [
            # a table is cut at pipes in code as well, and in code nothing can be escaped
            _text(row["null"]) if set("|\\") & set(row["null"]) else _code(row["null"]),
            _interval(row["estimate"], row["low"], row["high"]),
            _range(row["null_low"], row["null_high"]),
            _number(row["floor"]),
            _text(_units(row)),
            _text(row["outcome"]),
            _text(row["rule"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _one_line(value: object) -> str:
    """Return a text whose lines, and whatever cannot be printed, have become single spaces."""
    return " ".join("".join(each if each.isprintable() else " " for each in str(value)).split(" ")).strip()


def _text(value: object) -> str:
    r"""Return a text so that Markdown shows it as it is: no mark-up, links, HTML, entities or new cells.

    >>> print(_text("a|b <i> [c](d) *e* f_g _h_"))
    a\|b \<i> \[c\](d) \*e\* f_g \_h\_
    """
    marked = re.sub(r"([\\\\`*\[\]<&|$~])", r"\\\1", _one_line(value))
    # within a word an underscore is itself
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", marked)


def _code(value: object) -> str:
    """Return a text as code, whatever backquotes it holds.

    >>> print(_code("a"), _code("`a"), _code(""))
    `a` `` `a `` ` `
    """
    text = _one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # one space at each end is not shown, and keeps backquotes apart
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text or ' '}`"


def webpage(ledger: Ledger, figures: Figures, studies: tuple[Study, ...] = STUDIES) -> str:
    """Return the ledger as one HTML page without outside resources; arguments as of ``markdown``."""
    rows = _joined(ledger, figures, studies)
    titles = {study.name: study.title for study in studies}
    body = "\n".join(_html_row(row, titles) for _, row in rows.iterrows())
    claims = rows[["claim", "experiment", "verdict"]].drop_duplicates()
    counts = " ".join(
        f'<button type="button" class="{_slug(verdict)}" data-verdict="{verdict}" aria-pressed="false">'
        f"{MARKS[verdict]} {int((claims['verdict'] == verdict).sum())} {verdict}</button>"
        for verdict in ORDER
    )
    headings = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{name}</button></th>' for name in HEADINGS
    )
    reading = "".join(f"<li>{html.escape(line)}</li>" for line in READING)
    return PAGE.format(counts=counts, headings=headings, body=body, reading=reading)


HEADINGS = ("verdict", "claim", "experiment", "null", "row", "estimate [95 %]", "null's range", "floor", "n", "rule")


def _html_row(row: pd.Series, titles: Mapping[str, str]) -> str:
    def text(value: object) -> str:
        return html.escape(_one_line(value))

    details = [titles.get(row["study"], row["study"]), f"source: {row['source']}"]
    if row["published"]:
        details.insert(1, f"published: {row['published']}")
    link = f' <a href="{text(quote(row["figure"]))}">figure</a>' if row["figure"] else ""
    claim = f"<strong>{text(row['statement'])}</strong>{link}<small>{text('; '.join(details))}</small>"
    why = f"<small>{text(row['why'])}</small>" if row["why"] else ""
    verdict = row["verdict"]
    cells = [
        (ORDER.index(verdict), f'<span class="{_slug(verdict)}">{MARKS[verdict]} {verdict}</span>{why}'),
        (row["claim"], claim),
        (row["experiment"], f"{text(row['experiment']) or '–'}<small>{text(row['scale'])}</small>"),
        (row["null"], text(row["null"].replace("_", " "))),
        (row["outcome"], text(row["outcome"])),
        (row["estimate"], _interval(row["estimate"], row["low"], row["high"])),
        (row["null_high"], _range(row["null_low"], row["null_high"])),
        (row["floor"], _number(row["floor"])),
        (row["n"], f"{text(row['observed'])}<small>{text(row['unit'])}</small>"),
        (row["rule"], f"<small>{text(row['rule'])}</small>"),
    ]
    inner = "".join(f'<td data-key="{_key(key)}">{content}</td>' for key, content in cells)
    return f'<tr data-verdict="{verdict}">{inner}</tr>'


def _units(row: pd.Series) -> str:
    """How many units a row rests on, and of what, unless they are seeds."""
    return row["observed"] if row["unit"] == "seed" else f"{row['observed']} {row['unit']}s"


def _joined(ledger: Ledger, figures: Figures, studies: tuple[Study, ...]) -> pd.DataFrame:
    of_claim = {(study.name, claim.name): claim.figure for study in studies for claim in study.claims}
    links = []
    for study, claim, experiments in ledger.table[["study", "claim", "experiment"]].itertuples(index=False):
        drawn = figures.get(of_claim.get((study, claim), ""))
        shows = drawn is not None and bool(set(experiments.split(", ")) & set(drawn.experiments))
        links.append(drawn.path if drawn is not None and shows else "")
    return pd.concat([ledger.table, ledger.notes], axis=1).assign(figure=links)


def _key(value: object) -> str:
    if isinstance(value, float) and not np.isfinite(value):
        return ""
    return html.escape(f"{value:.12g}" if isinstance(value, float) else _one_line(value))


def _slug(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return (f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}").replace("-", "−")


def _interval(estimate: float, low: float, high: float) -> str:
    if not np.isfinite(estimate):
        return "–"
    return _number(estimate) + (f" [{_number(low)}, {_number(high)}]" if np.isfinite([low, high]).all() else "")


def _range(low: float, high: float) -> str:
    return _number(low) if low == high or not np.isfinite(low) else f"[{_number(low)}, {_number(high)}]"


# doubled braces are literal
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claims</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #1a1a1a; background: #fff; }}
h1 {{ margin: 0 0 .5rem; font-size: 1.4rem; }}
details {{ margin: .5rem 0 1rem; max-width: 70rem; }}
.tools {{ display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-bottom: .75rem; }}
.tools input {{ font: inherit; padding: .3rem .5rem; min-width: 18rem; }}
.tools button {{ font: inherit; padding: .3rem .6rem; border: 1px solid #999; background: #fff; cursor: pointer; }}
.tools button[aria-pressed=true] {{ outline: 3px solid #1a1a1a; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .5rem; border-bottom: 1px solid #ddd; }}
th {{ position: sticky; top: 0; background: #f3f3f3; white-space: nowrap; }}
th button {{ all: unset; cursor: pointer; font-weight: 600; }}
th button:focus-visible {{ outline: 2px solid #0072b2; }}
th[aria-sort=ascending] button::after {{ content: " ▲"; }}
th[aria-sort=descending] button::after {{ content: " ▼"; }}
td:nth-child(2) {{ min-width: 18rem; }}
td:nth-child(6), td:nth-child(7), td:nth-child(9) {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
td:nth-child(10) {{ min-width: 12rem; }}
small {{ display: block; color: #555; }}
td strong {{ font-weight: 500; }}
span.supported, span.not-supported, span.inconclusive {{ white-space: nowrap; font-weight: 600; }}
.supported {{ color: #00614a; }}
.not-supported {{ color: #a13d00; }}
.inconclusive {{ color: #555; }}
</style>
</head>
<body>
<h1>Claims</h1>
<details><summary>How to read this</summary><ul>{reading}</ul></details>
<div class="tools">
<input type="search" id="search" placeholder="search" aria-label="search all rows">
{counts}
<span id="shown" role="status"></span>
</div>
<table>
<thead><tr>{headings}</tr></thead>
<tbody>
{body}
</tbody>
</table>
<script>
"use strict";
const body = document.querySelector("tbody"), rows = Array.from(body.rows);
const search = document.getElementById("search"), shown = document.getElementById("shown");
const filters = Array.from(document.querySelectorAll("button[data-verdict]"));
function filter() {{
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const wanted = filters.filter(b => b.getAttribute("aria-pressed") === "true").map(b => b.dataset.verdict);
  let count = 0;
  for (const row of rows) {{
    const text = row.textContent.toLowerCase();
    row.hidden = !(words.every(w => text.includes(w)) && (!wanted.length || wanted.includes(row.dataset.verdict)));
    count += row.hidden ? 0 : 1;
  }}
  shown.textContent = count + " of " + rows.length + " rows";
}}
search.addEventListener("input", filter);
for (const button of filters) button.addEventListener("click", () => {{
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  filter();
}});
function compare(a, b) {{
  if (a === "" || b === "") return (a === "") - (b === "");  // nothing measured goes last
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? a.localeCompare(b) : difference;
}}
document.querySelectorAll("th").forEach((th, column) => th.firstChild.addEventListener("click", () => {{
  const down = th.getAttribute("aria-sort") === "ascending";
  document.querySelectorAll("th").forEach(each => each.setAttribute("aria-sort", "none"));
  th.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].dataset.key;
  rows.sort((a, b) => key(a) === "" || key(b) === "" ? compare(key(a), key(b))
                      : (down ? -1 : 1) * compare(key(a), key(b)));
  body.append(...rows);
}}));
// inside a report the page stands alone, away from the figures
if (!["file:", "http:", "https:"].includes(location.protocol))
  document.querySelectorAll("td a").forEach(a => a.remove());
filter();
</script>
</body>
</html>
"""
