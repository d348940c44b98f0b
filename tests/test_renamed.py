"""Names of earlier versions: refused in a config with the present one, and renamed in tables and archives."""

import subprocess

import pandas as pd
import pytest

from learning_geometry import archive
from learning_geometry.config import ConfigError, read_yaml, validate
from learning_geometry.config.renamed import RENAMED, with_present_names
from learning_geometry.files import read_provenance, read_table, write_table, write_text
from learning_geometry.tables import renamed
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import COLUMNS, tidy, with_other_seeds

VALUES = {"k": 16, "ablated": [1, 2], "dictionaries": {"mine": {"latents": 64}}}
TABLE_NAMES = [  # earlier quantity and null, present ones
    ("error_after_removal", "equal_norm_removal", "error_after_ablation", "equal_norm_ablation"),
    ("loss_change_after_removal_mean_kept", "", "loss_change_after_ablation_mean_kept", ""),
    ("half_change_step_of_running_error", "", "first_crossing_of_running_error", ""),
    ("lasting_half_change_step_of_directions_99", "", "lasting_first_crossing_of_directions_99", ""),
    ("lag_of_half_change_step_of_running_loss", "", "lag_of_first_crossing_of_running_loss", ""),
    ("defect_onset_step", "", "defect_crossing_step", ""),
    ("onset_before_grok", "", "defect_crossing_before_grok", ""),
    ("mean_cosine", "swapped_twins", "mean_cosine", "swapped_pairs"),
    ("my_error_after_removal", "twins", "my_error_after_removal", "twins"),  # a user's own
]


def asking(measurement, key):
    """A config whose only odd key is one setting of a measurement."""
    settings = {measurement: {key: VALUES[RENAMED.get((measurement, key), key)]}}
    if measurement == "dictionary_sweep":
        return {"language_models": {"mine": {"texts": {"a": "a.txt"}, "measurements": settings}}}
    run = {"seeds": [0], "task": {"name": "marker_sums"}, "model": {"positions": "learned", "readout": "last"}}
    return {"experiments": {"mine": run | {"training": {"steps": 10}, "measurements": settings}}}


@pytest.mark.parametrize("entry", RENAMED, ids="-".join)
def test_earlier_names_of_settings_are_refused_with_the_present_one_and_can_be_renamed(entry):
    measurement, key = entry
    config = asking(measurement, key)
    with pytest.raises(ConfigError) as caught:
        validate(config, files=False)
    section = "language_models" if "language_models" in config else "experiments"
    place, says = f"{section}.mine.measurements.{measurement}.{key}", f"it is called {RENAMED[entry]} now, rename it"
    assert list(caught.value.problems) == [f"{place}: a name of earlier versions; {says}"]
    assert with_present_names(config) == asking(measurement, RENAMED[entry])
    validate(with_present_names(config), files=False)


def test_names_that_stand_elsewhere_are_as_before():
    config = asking("sparse_execution", "k")
    config["experiments"]["mine"]["training"] = {"steps": 10, "active": 3}
    assert with_present_names(config) == config
    with pytest.raises(ConfigError, match=r"training\.active: unknown key"):
        validate(config, files=False)


def earlier_rows():
    """Rows as an earlier version wrote them."""
    rows = [{"step": i, "quantity": name, "null": null, "value": 1.0} for i, (name, null, *_) in enumerate(TABLE_NAMES)]
    return tidy(rows, "mine", 0).drop(columns="other_seeds")


def test_tables_of_earlier_versions_have_the_present_names():
    present = [(quantity, null) for *_, quantity, null in TABLE_NAMES]
    table = with_other_seeds(earlier_rows())
    assert [*zip(table["quantity"], table["null"], strict=True)] == present
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
    assert {null for _, null, *_ in TABLE_NAMES} >= set(renamed.NULLS)
    # what has the column was made with the present names, whatever they are
    assert with_other_seeds(earlier_rows().assign(other_seeds=""))["quantity"].iloc[0] == "error_after_removal"


def test_an_archive_of_the_first_layout_is_unpacked_under_the_present_names(tmp_path, monkeypatch):
    config = asking("sparse_execution", "removed")
    results, folder = tmp_path / "results", tmp_path / "redrawn"
    earlier = earlier_rows()
    # a summary of the rows as they were: the column alone keeps them from being renamed
    summary = summarize([earlier.assign(other_seeds="")])
    write_table(earlier, results / "mine/runs.parquet", {"seed": 0})
    write_table(summary, results / "mine/summary.parquet", {"code": "0"})
    write_text(results / "claims.md", "drawn")
    monkeypatch.setattr(archive, "LAYOUT", 1)
    archive.pack(tmp_path / "archive.tar.gz", results, config, ["claims.md"])
    assert archive.unpack(tmp_path / "archive.tar.gz", folder)["layout"] == 1
    assert read_yaml(folder / "config.yaml") == asking("sparse_execution", "ablated")
    runs, summarized = (read_table(folder / f"mine/{name}.parquet") for name in ("runs", "summary"))
    pd.testing.assert_frame_equal(runs, renamed.with_present_names(earlier))
    pd.testing.assert_frame_equal(summarized, renamed.with_present_names(summary))
    assert set(runs["quantity"]) == set(summarized["quantity"]) == {quantity for *_, quantity, _ in TABLE_NAMES}
    assert read_provenance(folder / "mine/runs.parquet") == {"seed": 0}
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert done.returncode == 0
