"""Dictionaries of SAELens in the plan: their files are read from outside, and where they lie is no part of a key."""

import shutil

import pytest

from learning_geometry.config import validate
from learning_geometry.known import digest_of
from learning_geometry.planning.jobs import all_jobs
from learning_geometry.planning.outside import outside_files
from learning_geometry.planning.plan import Plan, _numbers
from tests.saelens_files import perfect, write_saelens


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Return the plan of a sweep with these dictionaries, and its job."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")

    def make(dictionaries):
        language_model = {
            "model": {"source": "model"},
            "texts": {"t": "python_documentation"},
            "measurements": {"dictionary_sweep": {"dictionaries": dictionaries}},
        }
        config = validate({"language_models": {"a": language_model}}, files=False)
        plan = Plan(config, tmp_path)
        (job,) = (each for each in all_jobs(config) if each.rule == "measure_language_model")
        return plan, job

    return make


def test_the_files_of_a_dictionary_are_read_from_outside(planned, tmp_path):
    write_saelens(tmp_path / "sae", perfect())
    _, job = planned({"mine": {"saelens": "sae"}, "standard": {"latents": 576}})
    assert job.reads["dictionaries"] == {"mine": "sae"}
    files = outside_files({"dictionaries": {"mine": "sae"}})
    assert {role: str(path) for role, path in files.items()} == {
        "dictionaries/mine/cfg.json": "sae/cfg.json",
        "dictionaries/mine/sae_weights.safetensors": "sae/sae_weights.safetensors",
    }
    (tmp_path / "sae/cfg.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"sae/cfg\.json: no such file"):
        outside_files({"dictionaries": {"mine": "sae"}})


def test_without_one_the_sweep_reads_no_model(planned):
    _, job = planned({"standard": {"latents": 576}})
    assert job.reads == {}
    assert job.settings["measurement"]["dictionaries"]["standard"].keys().isdisjoint({"aligned", "whitened"})


def test_what_a_folder_holds_changes_the_key_and_its_place_does_not(planned, tmp_path):
    write_saelens(tmp_path / "sae", perfect())
    shutil.copytree(tmp_path / "sae", tmp_path / "moved")

    def made_from(folder, **entry):
        plan, job = planned({"mine": {"saelens": folder} | entry})
        return {**plan.outside(job), "settings": digest_of(_numbers(job))}

    before = made_from("sae")
    assert made_from("moved") == before
    assert made_from("sae", tokens=48) != before
    write_saelens(tmp_path / "sae", 2 * perfect())
    after = made_from("sae")
    assert {key for key in before if before[key] != after[key]} == {"dictionaries/mine/sae_weights.safetensors"}
