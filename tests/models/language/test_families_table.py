"""docs/families.md holds what the descriptions and the tiny models of the families say now."""

from pathlib import Path

import pytest

from tests import families_table
from tests.families_table import BEGIN, END, into, table

REPOSITORY = Path(__file__).parents[3]


def test_the_table_is_what_is_printed(tmp_path, monkeypatch):
    found = table()
    text = (REPOSITORY / "docs/families.md").read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0].strip() + "\n"
    assert between == found, "run python -m tests.families_table --into docs/families.md"
    monkeypatch.setattr(families_table, "table", lambda: found)
    copy = tmp_path / "families.md"
    copy.write_text(text.replace("| `opt` |", "| `tpo` |"), encoding="utf-8")
    into(copy)
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text(f"{END}\n{BEGIN}\n")
    with pytest.raises(ValueError, match="lacks the lines"):
        into(copy)
