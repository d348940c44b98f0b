"""The page about maps tells of all of them, and what it shows is read."""

import re
from pathlib import Path

from learning_geometry.sources.map_files import _KEYS, LISTS, built_in, read_map
from learning_geometry.sources.targets import TARGETS

PAGE = (Path(__file__).parents[2] / "docs/maps.md").read_text()


def first_column(heading):
    """The names in the first column of the table under a heading."""
    table = PAGE.split(f"| {heading} |")[1].split("\n\n")[0]
    return {name for line in table.splitlines()[2:] for name in re.findall("`([a-z_0-9]+)[`:]", line.split("|")[1])}


def test_the_map_that_is_shown_is_read(tmp_path):
    (tmp_path / "shown.yaml").write_text(PAGE.split("```yaml\n")[1].split("```")[0])
    assert "final_norm.bias" in {entry.name for entry in read_map("shown.yaml", tmp_path).entries}


def test_every_map_and_operation_and_target_is_described():
    assert first_column("map") == set(built_in())
    assert first_column("in a line") == set(_KEYS)
    assert first_column("beside the lines") == {*LISTS, "also"}
    assert first_column("`--as`") == set(TARGETS)
