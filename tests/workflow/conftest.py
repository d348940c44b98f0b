"""Whole-DAG runs: a copy of the workflow in a temporary folder, driven as a user drives it."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.own import own
from tests.slurm_cluster import cluster
from tests.tiny_language_model import write_tiny_language_model

REPOSITORY = Path(__file__).parents[2]
FIGURES = tuple(name for name in own("figures") if name not in ("sweep", "text_training", "activation_ranks_by_step"))
"""All but those that take further experiments or models, which test_overlay_and_sweep.py plans, and test_text.py and
test_series.py run."""
PARTS = ["Snakefile", "redraw.smk", "environment.yml", "config", "profiles", "src", "workflow"]


@dataclass(frozen=True)
class Copy:
    """A copy of the workflow that tests may edit."""

    folder: Path

    def write_config(self, config):
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(config))

    def command(self, *arguments, config="tiny.yaml"):
        configuration = ["--configfile", config] if config else []
        return [sys.executable, "-m", "snakemake", *configuration, *arguments]

    def snakemake(self, *arguments, config="tiny.yaml", check=True):
        """Run Snakemake and return the finished process; its output is one text."""
        done = subprocess.run(
            self.command(*arguments, config=config),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def planned(self, *arguments, **options):
        """Return how many jobs of each rule a dry run plans."""
        return job_counts(self.snakemake("--dry-run", "--cores", "1", *arguments, **options).stdout)

    def edit(self, path, old, new):
        """Replace the first occurrence of a text in a file; the text must be there."""
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path}: no {old!r}"
        file.write_text(text.replace(old, new, 1))

    def tables(self, results="results"):
        """Return the bytes of every table by path."""
        root = self.folder / results
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def job_counts(said):
    """Return how many jobs of each rule Snakemake says that there are."""
    lines = said.splitlines()
    if "Job stats:" not in lines:
        return {}
    table = lines[lines.index("Job stats:") + 3 :]
    jobs = dict(line.split() for line in table[: table.index("")])
    return {rule: int(count) for rule, count in jobs.items() if rule not in ("total", "all")}


def environment():
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def copy_workflow(folder):
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    write_tiny_language_model(folder / "tiny_language_model", layers=3)
    for kind in ("harmful", "harmless"):
        (folder / f"{kind}.txt").write_text("\n".join(f"{kind} thing number {i}" for i in range(12)))
    return Copy(folder)


SUMS_FIGURES = (
    "marker_sums_learning",
    "trajectory_dimension",
    "trajectory_windows",
    "trajectory_orientation",
    "commutator_alignment",
    "attention_concentration",
    "sparse_execution",
    "subspace_training",
)
OPERATIONS_FIGURES = ("grokking_timeline", "embedding_frequencies")
LANGUAGE_FIGURES = (
    "activation_ranks",
    "dead_features",
    "activation_patterns",
    "contrast_by_layer",
    "depth_growth",
    "untangling",
    "shared_directions",
    "change_of_basis",
)


def tiny_config():
    """Real training of two seeds of every task, seconds long; the first experiment alone is of copying."""
    training = {"batch_size": 16, "evaluate_every": 10, "evaluation_sequences": 20}
    model = {"width": 8, "heads": 2, "final_norm": True, "positions": "learned", "readout": "last"}
    trajectory_geometry = {"draws": 100, "windows": 2, "neighbour_draws": 2}
    figures = dict.fromkeys(FIGURES, "tiny")
    figures |= dict.fromkeys(SUMS_FIGURES, "tiny_sums") | dict.fromkeys(OPERATIONS_FIGURES, "tiny_grokking")
    figures |= dict.fromkeys(LANGUAGE_FIGURES, "tiny_language")
    return {
        "experiments": {
            "tiny": {
                "study": "orthogonal_subspaces",
                "seeds": [0, 1],
                "task": {
                    "name": "copying",
                    "vocabulary": 8,
                    "length": 24,
                    "segment_length": [6, 7],
                    "out_of_distribution_segment_length": 8,
                    "test_sequences": 60,
                },
                "model": {"width": 8, "dropout": 0.1},
                "training": {
                    "steps": 40,
                    "batch_size": 5,
                    "evaluate_every": 10,
                    "evaluation_sequences": 20,
                    "checkpoints": {"logarithmic": 2, "every": 20},
                },
                "measurements": {
                    "copying_errors": {"every": 20},
                    "head_scores": {"every": 20, "sequences": 20},
                    "embedding_spectrum": {"every": 20, "null_draws": 40, "gap_draws": 400},
                    "attention_logits": {"every": 20},
                    "composition": {"every": 20, "ranks": [2, 5], "null_draws": 40, "subspace_draws": 40},
                    "bridge_energy": {
                        "every": 20,
                        "ranks": [2],
                        "medium": 4,
                        "lag_rank": 2,
                        "lags": 3,
                        "null_draws": 40,
                    },
                    "subspace_function": {
                        "every": 20,
                        "sequences": 10,
                        "medium": 4,
                        "ranks": [2],
                        "null_draws": 2,
                    },
                    "attention_patterns": {},
                    "matrix_spectra": {"every": 20, "null_draws": 40},
                    "series_audit": {},
                    "rank_over_training": {"every": 20, "sequences": 20, "null_draws": 2},
                    "contrast_over_training": {"every": 20, "sequences": 20, "null_draws": 5},
                    "length_generalisation": {"every": 40, "factors": [1.0, 1.5], "test_sequences": 20},
                    "landscape": {
                        "sequences": 6,
                        "held_out": 8,
                        "distances": [0.1],
                        "density_steps": 4,
                        "line_points": 3,
                        "slice_points": 3,
                        "descent_sequences": 8,
                        "descent_steps": 2,
                        "descent_every": 1,
                    },
                    "sharpness": {"every": 20, "details_every": 40, "sequences": 10},
                    "block_curvature": {
                        "every": 40,
                        "sequences": 5,
                        "tolerance": 0.1,
                        "medium": 4,
                        "bridge_rank": 2,
                        "noise_pairs": 2,
                        "noise_sequences": 5,
                        "null_draws": 2,
                    },
                },
            },
            "tiny_sums": {
                "study": "execution_manifolds",
                "seeds": [0, 1],
                "task": {"name": "marker_sums", "markers": [1, 2], "test_sequences": 60},
                "model": model,
                "training": training | {"steps": 100, "checkpoints": {"every": 10, "logarithmic": 0}},
                "measurements": {
                    "trajectory_geometry": trajectory_geometry,
                    "trajectory_orientation": {"ranks": [1, 3], "null_draws": 100},
                    "commutators": {"every": 50, "pairs": 2, "finite_pairs": 1, "null_draws": 100},
                    "attention_entropy": {"every": 10, "sequences": 20},
                    "routing_coordinate": {"null_draws": 40},
                    "sparse_execution": {
                        "latents": 24,
                        "k": 4,
                        "training_sequences": 100,
                        "steps": 20,
                        "ablated": [1, 16],
                        "random_draws": 2,
                        "null_draws": 2,
                        "sequences": 40,
                    },
                    "subspace_training": {"steps": 6, "sequences": 20},
                },
            },
            "tiny_grokking": {
                "study": "execution_manifolds",
                "seeds": [0],
                "task": {"name": "binary_operations", "prime": 7},
                "model": model | {"mlp_width": 16, "causal": False},
                "optimizer": {"weight_decay": 1.0},
                "training": training | {"steps": 60, "checkpoints": {"every": 10, "logarithmic": 0}},
                "measurements": {
                    "trajectory_geometry": trajectory_geometry | {"neighbours": False},
                    "commutators": {"every": 20, "pairs": 2, "finite_pairs": 1, "null_draws": 100},
                    "embedding_frequencies": {"every": 30},
                },
            },
        },
        "language_models": {
            "tiny_language": {
                "study": "activation_geometry",
                "model": {"source": "tiny_language_model"},
                "texts": {"documentation": "python_documentation"},
                "text": {"tokens": 2560, "window": 32, "layers": [1]},
                "prompts": {"harmfulness": ["harmful.txt", "harmless.txt"]},
                "measurements": {
                    "activation_ranks": {"null_draws": 2},
                    "output_projection": {},
                    "downstream_loss": {"tokens": 16, "windows": 10},
                    "dictionary_sweep": {
                        "k": 4,
                        "steps": 10,
                        "batch_size": 64,
                        "start_vectors": 256,
                        "dictionaries": {"standard_small": {"latents": 16}, "standard": {"latents": 32}},
                    },
                    "activation_patterns_by_layer": {"vectors": 500},
                    "prompt_contrasts": {"resamples": 50, "swapped_labellings": 10},
                    "depth_growth": {"resamples": 50},
                    "untangling": {"resamples": 50, "swapped_labellings": 10, "swapped_shapes": 2, "rank": 2},
                    "shared_directions": {},
                    "change_of_basis": {"steps": 50, "points": 20},
                },
            },
        },
        "figures": {name: {"experiments": [experiment]} for name, experiment in figures.items()},
    }


@pytest.fixture
def workflow_copy(tmp_path):
    """A fresh copy, nothing run yet."""
    copy = copy_workflow(tmp_path)
    copy.write_config(tiny_config())
    return copy


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A copy with the whole tiny DAG run once, not to be changed, and what the run printed."""
    copy = copy_workflow(tmp_path_factory.mktemp("finished"))
    copy.write_config(tiny_config())
    return copy, copy.snakemake("--cores", "2").stdout


@pytest.fixture
def editable(finished, tmp_path):
    """A copy of the finished run, its files as old as the original's, that a test may edit."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    return Copy(tmp_path / "copy")


@pytest.fixture(scope="session")
def up():
    """A Slurm cluster; as long as it is up nothing else may bring up one."""
    with cluster() as found:
        yield found


@pytest.fixture(scope="session")
def here(tmp_path_factory):
    """The run of the tests of Slurm, on this machine."""
    from .slurm_runs import prepared

    copy = prepared(tmp_path_factory.mktemp("here"))
    copy.snakemake("--cores", "2")
    return copy


@pytest.fixture(scope="session")
def seen(up, tmp_path_factory):
    """By the name of a scenario, what returns how it ended, or raises what it raised; they mostly wait."""
    from .slurm_runs import prepared
    from .slurm_scenarios import SCENARIOS

    with ThreadPoolExecutor(3) as pool:
        runs = {each: pool.submit(each, prepared(tmp_path_factory.mktemp(each.__name__)), up) for each in SCENARIOS}
    return {each.__name__: run.result for each, run in runs.items()}
