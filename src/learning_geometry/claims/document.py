"""Write what a run of text models shows into a document: numbers from its summary, and verdicts from its ledger.

``python -m learning_geometry.claims.document results/text --into docs/text.md`` replaces what stands between the two
marks of the file, and without ``--into`` prints it. No number between the marks is typed by hand.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from learning_geometry.claims.text_models import FINAL, HELD_OUT, REPEATED, STUDY
from learning_geometry.files import read_provenance, read_table, read_tensor, write_text

COMMAND = "python -m learning_geometry.claims.document"

BEGIN, END = (f"<!-- {word} of what `{COMMAND}` prints -->" for word in ("begin", "end"))
"""The lines between which the tables stand in a document."""

SIGNIFICANT = 3
"""Digits of a number."""


@dataclass(frozen=True)
class Number:
    """A number of a summary that is written down: what it is called, and where it stands."""

    label: str
    quantity: str
    part: str = "model"
    data: str = ""
    index: int = 0
    first: bool = False
    """At the first step that was measured, and not at the last."""


OF_RANKS = (
    ("attention.output", "attention outputs"),
    ("mlp.output", "MLP outputs"),
    ("residual_mid", "stream after attention"),
)

RANK, EXPONENT, DIRECTIONS = "effective_rank_of_variances", "power_law_exponent", "directions_99"
INDUCTION, PREVIOUS = "induction_score_rise_step", "previous_token_score_rise_step"

NUMBERS = (
    Number("loss on text held out (nats)", "loss", data=HELD_OUT),
    Number("error on text held out", "error", data=HELD_OUT),
    Number("error on the second copy of repeated tokens", "error", data=REPEATED),
    Number("loss saved by the repetition (nats)", "loss_saved_by_repetition", data=REPEATED),
    *(
        Number(f"directions for 99 % of variance, {label}, {when}", DIRECTIONS, part, HELD_OUT, 0, when == "untrained")
        for part, label in OF_RANKS
        for when in ("untrained", "trained")
    ),
    *(Number(f"effective rank, {label}, trained", "effective_rank", part, HELD_OUT) for part, label in OF_RANKS),
    Number("effective rank of variances, last layer's stream, untrained", RANK, FINAL, HELD_OUT, first=True),
    Number("effective rank of variances, last layer's stream, trained", RANK, FINAL, HELD_OUT),
    Number("its largest rise starts (step)", f"{RANK}_phase_step", FINAL, HELD_OUT, 0),
    Number("and stops (step)", f"{RANK}_phase_step", FINAL, HELD_OUT, 1),
    Number("exponent of its spectrum, untrained", EXPONENT, FINAL, HELD_OUT, first=True),
    Number("exponent of its spectrum, trained", EXPONENT, FINAL, HELD_OUT),
    Number("share of the variance of ln λ that the power law explains", "power_law_r_squared", FINAL, HELD_OUT),
    Number("largest induction score of a head", "largest_induction_score", data=REPEATED),
    Number("largest previous-token score of a head", "largest_previous_token_score", data=REPEATED),
    *(
        Number(f"induction has made {percent} % of its rise (step)", INDUCTION, data=REPEATED, index=percent)
        for percent in (10, 50, 90)
    ),
    Number("the previous-token score has made 50 % of its rise (step)", PREVIOUS, data=REPEATED, index=50),
    Number("match of the circuit's heads (cosine), untrained", "circuit_match_rms_cosine", index=10, first=True),
    Number("match of the circuit's heads (cosine), trained", "circuit_match_rms_cosine", index=10),
    Number("share of the first component of the trajectory of all weights", "trajectory_pc1_share"),
)
"""What is written down of every experiment of the study, as far as it was measured."""


def document(results: str | Path) -> str:
    """Return what a run shows, as Markdown.

    Args:
        results: its results folder, with ``claims.csv`` and the summaries of the experiments of this study.

    Raises:
        FileNotFoundError: there is no ledger, naming it.
        ValueError: the ledger holds no claim of the study.
    """
    folder = Path(results)
    ledger = pd.read_csv(folder / "claims.csv", keep_default_na=False, na_values=[""])
    ledger = ledger[(ledger["study"] == STUDY.name) & ledger["experiment"].notna()]
    if ledger.empty:
        raise ValueError(f"{folder / 'claims.csv'}: no claim of the study {STUDY.name}; give the folder of such a run")
    blocks = []
    for experiment, claims in ledger.groupby("experiment", sort=False):
        blocks.append("\n\n".join(_of_experiment(folder, str(experiment), claims)))
    return "\n\n".join(blocks) + "\n"


def _of_experiment(folder: Path, experiment: str, claims: pd.DataFrame) -> Iterator[str]:
    path = folder / experiment / "summary.parquet"
    summary = read_table(path)
    made = read_provenance(path)["made_with"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("python", "torch") if name in made)
    read = [_read(dataset) for dataset in sorted((folder / experiment).glob("seed-*/dataset.safetensors"))[:1]]
    yield f"Experiment `{experiment}`, {'; '.join([versions, *read])}. Estimates over seeds with 95 % intervals."
    rows = [(number.label, *_cells(number, summary)) for number in NUMBERS]
    yield _table(("at the end of training, or when", "estimate", "95 %", "null", "n"), [row for row in rows if row[1]])
    yield _table(
        ("claim", "compared with", "estimate", "95 %", "null or margin", "n", "verdict"), list(_claim_rows(claims))
    )


def _read(dataset: Path) -> str:
    """Say which text a run read, by the digest and the number of tokens in its dataset."""
    digest = bytes(read_tensor(dataset, "drawn_once/text_digest")).hex()
    tokens = {side: len(read_tensor(dataset, f"drawn_once/{side}")) for side in ("training", HELD_OUT)}
    return f"text {digest[:12]}, {tokens['training']:,} tokens to train on and {tokens[HELD_OUT]:,} held out"


def _cells(number: Number, summary: pd.DataFrame) -> tuple[str, str, str, str]:
    """Return estimate, interval, nulls and n of a number; "" of one that was not measured."""
    chosen = summary["quantity"].eq(number.quantity) & summary["part"].eq(number.part)
    chosen &= summary["data"].eq(number.data) & summary["index"].eq(number.index)
    rows = summary[chosen]
    if rows.empty:
        return "", "", "", ""
    rows = rows[rows["step"] == (rows["step"].min() if number.first else rows["step"].max())]
    (measured,) = rows[rows["null"] == ""].to_dict("records")
    nulls = [
        f"{row['null'].replace('_', ' ')} {_number(row['estimate'])}" for _, row in rows[rows["null"] != ""].iterrows()
    ]
    if measured["censored"]:
        total = measured["n"]
        return f"not in {measured['censored']} of {total} seeds", "", "; ".join(nulls), str(total)
    interval = _interval(measured["low"], measured["high"])
    return _number(measured["estimate"]), interval, "; ".join(nulls), str(measured["n"])


def _claim_rows(claims: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for _, rows in claims.groupby("claim", sort=False):
        for place, (_, row) in enumerate(rows.iterrows()):
            yield (
                row["statement"] if place == 0 else "",
                str(row["null"]).replace("_", " "),
                _number(row["estimate"]),
                _interval(row["low"], row["high"]),
                _interval(row["null_low"], row["null_high"]),
                str(row["n"]),
                f"**{row['verdict']}**" if place == 0 else "",
            )


def _number(value: float) -> str:
    """Return a number with three digits, whole from a thousand on; "" if there is none.

    >>> _number(0.12345), _number(-2.5), _number(1234.5), _number(float("nan"))
    ('0.123', '−2.50', '1234', '')
    """
    if not np.isfinite(value):
        return ""
    if abs(value) >= 10**SIGNIFICANT:
        text = f"{value:.0f}"
    else:
        whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
        text = f"{value:.{SIGNIFICANT - whole}f}"
    return text.replace("-", "−")


def _interval(low: float, high: float) -> str:
    if not np.isfinite([low, high]).all():
        return ""
    return _number(low) if low == high else f"{_number(low)} to {_number(high)}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "results", metavar="FOLDER", help="results folder of a run of config/text.yaml, or of one like it"
    )
    parser.add_argument("--into", metavar="FILE", help="write it between the two marks of a file, such as docs/text.md")
    options = parser.parse_args(arguments)
    try:
        text = document(options.results)
        if options.into:
            whole = Path(options.into).read_text(encoding="utf-8")
            before, begin, rest = whole.partition(BEGIN)
            _, end, after = rest.partition(END)
            if not (begin and end):
                raise ValueError(f"{options.into}: lacks the lines {BEGIN!r} and {END!r}; add them")
            write_text(options.into, f"{before}{BEGIN}\n\n{text}\n{END}{after}")
        else:
            print(text, end="")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
