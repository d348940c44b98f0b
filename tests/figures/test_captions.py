"""Captions of the report: rendered as Snakemake does, of the models and experiments that were run."""

import functools
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from learning_geometry.config import module_literal, read_yaml, settings_schema, subject, validate
from learning_geometry.planning.jobs import said_of
from tests.own import own

REPORT = Path(__file__).parents[2] / "workflow/report"
NAMES = ["first_of_two", "second_of_two"]


@functools.cache
def default_config():
    return validate(read_yaml(REPORT.parents[1] / "config/config.yaml"), files=False)


def rendered(figure, names):
    config = default_config()
    requires = module_literal("figures", figure)
    # no sweep is in the default config
    default = config["figures"].get(figure, {"experiments": ["copying"]})["experiments"][0]
    studied = config["experiments"] | config["language_models"]
    of_model = bool(requires) and subject(requires[0]) != "runs"
    sections = dict(studied[default])
    if of_model:
        sections["model"] = {"source": "/models/tiny", "gguf": "tiny.gguf", "revision": None, "dtype": "bfloat16"}
    options = {"experiments": names, "prompts": {}}
    options |= {"said": dict.fromkeys(names, said_of(sections["model"]))} if of_model else {}
    options |= {key: each["default"] for key, each in settings_schema("figures", figure)["properties"].items()}
    options |= {f"{name}s": {each: sections.get(name, {}) for each in names} for name in ("task", "model", "optimizer")}
    # as in snakemake.report: undefined names are errors
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    snakemake = SimpleNamespace(params=SimpleNamespace(options=options), config={})
    text = environment.from_string((REPORT / f"{figure}.rst").read_text()).render(snakemake=snakemake)
    return " ".join(text.split()), of_model


@pytest.mark.parametrize("figure", own("figures"))
def test_captions_name_what_was_run_and_nothing_else(figure):
    most = module_literal("figures", figure, "MOST")["experiments"]
    names = NAMES[:most]
    text, of_model = rendered(figure, names)
    assert all(name in text for name in names)
    if of_model and figure != "change_of_basis":  # which is of no language model
        assert "is /models/tiny, tiny.gguf, computed in bfloat16" in text
    for other in ("SmolLM2", "4 bits", "smollm2", "documentation", "source_code", "harmfulness", "sentiment"):
        assert other not in text
    assert names[0] in rendered(figure, names[:1])[0]


@pytest.mark.parametrize("figure", own("figures"))
def test_captions_say_from_how_many_seeds_on_there_are_intervals(figure):
    text = (REPORT / f"{figure}.rst").read_text()
    assert "none for n = 1" not in " ".join(text.split())
