"""What is written into a document about a run: the numbers of its tables, and nothing else."""

import pandas as pd
import pytest

from learning_geometry.claims.document import BEGIN, END, document, main
from learning_geometry.claims.judge import judge
from learning_geometry.files import write_table
from learning_geometry.tables.summary import summarize

from .conftest import tables
from .test_text_models import experiments, seed_rows


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The tables of a planted run: five seeds, of which none has a dataset, and the ledger."""
    folder = tmp_path_factory.mktemp("results")
    made = tables(*(seed_rows(seed, late=1500) for seed in range(5)), experiment="text")
    judge(experiments(), made).table.to_csv(folder / "claims.csv", index=False)
    write_table(summarize(made), folder / "text/summary.parquet", {"made_with": {"python": "3.99", "torch": "9.9"}})
    return folder


def test_numbers_and_verdicts_are_those_of_the_tables(results):
    text = document(results)
    assert text.startswith("Experiment `text`, python 3.99, torch 9.9. Estimates over seeds")
    summary = pd.read_parquet(results / "text/summary.parquet")
    (row,) = summary.query("quantity == 'trajectory_pc1_share' and null == ''").to_dict("records")
    (line,) = [line for line in text.splitlines() if "first component of the trajectory" in line and "| 5 |" in line]
    assert f"| {row['estimate']:.3f} | {row['low']:.3f} to {row['high']:.3f} | " in line
    assert "step norm walk 0.600" in line
    ledger = pd.read_csv(results / "claims.csv")
    for (_, verdict), rows in ledger.groupby(["claim", "verdict"]):
        (line,) = [line for line in text.splitlines() if rows["statement"].iloc[0] in line]
        assert line.endswith(f"| **{verdict}** |")
    assert len(text.splitlines()) == text.count("\n") and "nan" not in text
    # what was not measured in these tables has no row
    assert "loss on text held out" not in text


def test_only_what_stands_between_the_marks_is_replaced(results, tmp_path, capsys):
    path = tmp_path / "text.md"
    path.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert main([str(results), "--into", str(path)]) == 0
    assert path.read_text() == f"above\n{BEGIN}\n\n{document(results)}\n{END}\nbelow\n"
    assert main([str(results)]) == 0 and capsys.readouterr().out == document(results)


def test_what_is_missing_is_named(results, tmp_path, capsys):
    (tmp_path / "text.md").write_text("no marks")
    assert main([str(results), "--into", str(tmp_path / "text.md")]) == 1
    assert "lacks the lines" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1 and "claims.csv" in capsys.readouterr().err
    pd.DataFrame({"study": ["another"], "experiment": ["x"]}).to_csv(tmp_path / "claims.csv")
    assert main([str(tmp_path)]) == 1 and "no claim of the study text_models" in capsys.readouterr().err
