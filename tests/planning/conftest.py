"""A config of every kind of job, and what its jobs would leave on disk, written without running any."""

import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks._planted import plant
from learning_geometry.config import read_yaml, validate
from learning_geometry.fingerprint import PACKAGE
from learning_geometry.planning.plan import Plan
from tests.tiny_language_model import write_tiny_language_model

SCRIPTS = PACKAGE.parents[1] / "workflow/scripts"


def small_config():
    return {
        "experiments": {
            "small": {
                "study": "orthogonal_subspaces",
                "seeds": [0, 1],
                "task": {"name": "copying"},
                "training": {"steps": 40},
                "measurements": {"embedding_spectrum": {}, "attention_logits": {}},
            }
        },
        "language_models": {
            "read": {
                "study": "activation_geometry",
                "model": {"source": "model"},
                "texts": {"letters": "letters.txt"},
                "text": {"tokens": 2560, "window": 32},
                "prompts": {"harmfulness": ["harmful", "harmless"]},
                "measurements": {"activation_ranks": {}, "dictionary_sweep": {}, "shared_directions": {}},
            }
        },
        "figures": {"embedding_singular_values": {"experiments": ["small"]}},
    }


@dataclass
class Project:
    """A folder with a config and results; the current directory."""

    folder: Path
    config: dict
    package: Path = PACKAGE
    scripts: Path = SCRIPTS

    def plan(self):
        import yaml

        (self.folder / "small.yaml").write_text(yaml.safe_dump(self.config))
        # the files of a model are checked elsewhere; what is planned from here on need not be a model
        config = validate(read_yaml(self.folder / "small.yaml"), files=False)
        return Plan(config, self.scripts, package=self.package)

    def again(self):
        """How many jobs of each rule must run, planned by a process that starts anew."""
        plan = self.plan()
        found = Counter(job.rule for job in plan.to_make)
        plan.known.save()
        return dict(found)

    def reasons(self):
        return sorted(self.plan().to_make.values())

    def finish(self):
        """Write what every job would leave, but the archive."""
        plant(self.plan(), steps=(0, 20, 40))

    def own_code(self):
        """Give the project a copy of the code that tests may edit."""
        self.package = self.folder / "src/learning_geometry"
        self.scripts = self.folder / "scripts"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, self.package, ignore=ignored)
        shutil.copytree(SCRIPTS, self.scripts, ignore=ignored)

    def edit(self, path, old, new):
        file = self.package / path
        text = file.read_text()
        assert old in text, f"{path}: no {old!r}"
        file.write_text(text.replace(old, new, 1))


def age(path, seconds=3600.0):
    """Give a file an older time of modification, as ``cp -p`` and ``rsync -a`` do."""
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture(scope="session")
def finished_small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    before = Path.cwd()
    os.chdir(folder)
    try:
        (folder / "letters.txt").write_text("abc " * 2000)
        write_tiny_language_model(folder / "model")
        Project(folder, small_config()).finish()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(finished_small, tmp_path, monkeypatch):
    """A copy of a finished project, in which the test is."""
    folder = tmp_path / "project"
    shutil.copytree(finished_small, folder)
    monkeypatch.chdir(folder)
    return Project(folder, small_config())
