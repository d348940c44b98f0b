"""A measurement that reads what another one of the run leaves, if both are asked for with the same settings."""

import pytest

from learning_geometry.config import ConfigError, validate
from learning_geometry.config.needs import shared
from learning_geometry.planning.jobs import all_jobs


def read_by_sharpness(**measurements):
    """What the job of ``sharpness`` reads of other measurements, seed by seed."""
    experiment = {
        "study": "orthogonal_subspaces",
        "seeds": [0, 1],
        "task": {"name": "copying"},
        "training": {"steps": 40},
        "measurements": {"sharpness": {"sequences": 32}} | measurements,
    }
    config = validate({"experiments": {"small": experiment}}, files=False)
    jobs = [job for job in all_jobs(config) if job.rule == "measure" and job.wildcards["measurement"] == "sharpness"]
    assert all(job.leaves == job.outputs[0].removesuffix(".parquet") for job in jobs)
    return [job.inputs["shared"] for job in jobs]


def test_what_is_asked_for_with_the_same_settings_is_read():
    tables = [("results/small/seed-0/landscape.parquet",), ("results/small/seed-1/landscape.parquet",)]
    assert read_by_sharpness(landscape={"sequences": 32}) == tables
    # tolerances are compared with what was found; nothing else of the landscape bears on it
    assert read_by_sharpness(landscape={"sequences": 32, "tolerance": 0.1, "held_out": 9}) == tables


def test_nothing_is_read_without_it_or_with_other_sequences():
    assert read_by_sharpness() == [(), ()]
    assert read_by_sharpness(landscape={"sequences": 31}) == [(), ()]


def test_what_itself_shares_is_not_shared(tmp_path, monkeypatch):
    from learning_geometry import discovery

    path = tmp_path / "runs/mine.py"
    path.parent.mkdir()
    path.write_text("SETTINGS = {'sequences': {'type': 'integer', 'default': 1}}\n")
    with path.open("a") as file:
        file.write("NEEDS = {'shares': {'sharpness': ['sequences']}}\n")
    before = discovery.module_file
    monkeypatch.setattr(discovery, "module_file", lambda kind, name: path if name == "mine" else before(kind, name))
    with pytest.raises(ConfigError, match="names sharpness, which itself shares"):
        shared("mine", {"mine": {"sequences": 1}})
