"""That the benchmarks run and what they write; how fast anything is decides no test."""

import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from learning_geometry.config import load
from learning_geometry.seeding import seeded
from learning_geometry.training.loop import build_model

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)


def test_every_module_of_the_folder_is_found_and_helpers_are_not(tmp_path):
    from benchmarks.__main__ import discover

    for name in ("second.py", "first.py", "_helper.py", "__init__.py", "notes.md"):
        (tmp_path / name).touch()
    assert discover(tmp_path) == ["first", "second"]
    assert "training_step" in discover()


# curvlinops uses torch.func, which loads rules that torch itself still scripts
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_all_benchmarks_run_small_and_write_the_table(tmp_path, capsys):
    from benchmarks.__main__ import discover, main

    main(discover(), rounds=1, output=tmp_path / "new" / "benchmarks.csv", small=True)
    table = pd.read_csv(tmp_path / "new" / "benchmarks.csv")
    assert list(table) == ["benchmark", "peer", "ours", "theirs", "unit", "ratio", "spread"]
    rows = set(table[["benchmark", "peer"]].itertuples(index=False, name=None))
    assert ("training step", "its matrix products alone") in rows
    assert ("hessian trajectory", "PyHessian's power iteration") in rows
    assert (table[["ours", "theirs", "ratio"]] > 0).all(axis=None)
    assert not table.duplicated(["benchmark", "peer"]).any()
    printed = capsys.readouterr().out
    assert all(column in printed for column in table)


def test_a_row_is_made_of_medians_of_alternating_timings(monkeypatch):
    from benchmarks._timing import Case, compare

    clock, calls = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def takes(name, seconds):
        def function():
            calls.append(name)
            clock[0] += seconds

        return function

    row = compare(Case("work", "a peer", takes("ours", 2.0), takes("theirs", 4.0)), rounds=3)
    assert (row["ours"], row["theirs"]) == (2000, 4000)
    assert (row["unit"], row["ratio"], row["spread"]) == ("ms", 0.5, 0)
    assert calls == ["theirs", "ours", "ours", "theirs"] * 2 + ["theirs", "ours"]


def test_parts_are_summed_and_each_is_timed_once(monkeypatch):
    from benchmarks._timing import Case, Count, row

    clock, left = [0.0], iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def ours():
        clock[0] += next(left)

    def theirs():
        clock[0] += 4.0

    timed = row(Case("work", "a peer", ours, theirs, parts=3), rounds=100)
    assert (timed["ours"], timed["theirs"], timed["ratio"]) == (6000, 12000, 0.5)
    counted = row(Count("work, products", "a peer", lambda: 2.0, lambda: 8.0, "products"), rounds=100)
    assert (counted["ours"], counted["theirs"], counted["ratio"], counted["unit"]) == (2.0, 8.0, 0.25, "products")


def test_peers_that_find_other_eigenvalues_are_an_error(capsys):
    from benchmarks.hessian_trajectory import check

    check({"ours": [2.0, 3.0], "curvlinops": [2.003, 3.0], "pyhessian": [2.03, 3.0]})
    with pytest.raises(ArithmeticError, match="curvlinops: its largest eigenvalues"):
        check({"ours": [2.0, 3.0], "curvlinops": [2.0, 3.02]})


def test_the_plain_modules_compute_the_same_model():
    """The peer of two rows is the same architecture: equal logits for equal parameters."""
    from benchmarks import training_step

    experiment = load(training_step.CONFIG)["experiments"]["copying"]
    model = build_model(experiment)
    parameters = model.initialise(seeded(0))
    plain = training_step.plain_model(experiment).eval()
    names = {"0": "embedding", "3": "readout"}
    for layer in range(2):
        names[f"{layer + 1}.norm"] = f"layers.{layer}.attention_norm"
        for role in ("query", "key", "value", "output"):
            names[f"{layer + 1}.{role}"] = f"layers.{layer}.attention.{role}"
    state = {
        f"{ours}.{kind}": parameters.get(f"{name}.{kind}")
        for ours, name in names.items()
        for kind in ("weight", "bias")
    }
    plain.load_state_dict({name: value for name, value in state.items() if value is not None}, strict=False)
    tokens = torch.from_numpy(seeded(1).integers(64, size=(3, 64)))
    torch.testing.assert_close(plain(tokens), model.forward(parameters, tokens), rtol=1e-4, atol=1e-5)


def test_a_copying_run_is_trained_once_where_no_finished_one_is_found(tmp_path, monkeypatch, capsys):
    from benchmarks import hessian_trajectory

    experiment = load(hessian_trajectory.CONFIG)["experiments"]["copying"]
    experiment["task"]["test_sequences"] = experiment["training"]["evaluation_sequences"] = 5
    experiment["training"] |= {"steps": 2, "batch_size": 2}
    experiment["training"]["checkpoints"] |= {"every": 1, "logarithmic": 0}
    monkeypatch.setattr(hessian_trajectory, "load", lambda path: {"experiments": {"copying": experiment}})
    monkeypatch.setattr(hessian_trajectory, "STEPS", range(3))
    monkeypatch.chdir(tmp_path)
    first, again = hessian_trajectory.default_work(), hessian_trajectory.default_work()
    assert capsys.readouterr().err.count("training a copying run once") == 1
    assert len(first.points) == 3 and first.tokens.shape == (5, 64)
    assert all(torch.equal(first.points[2][name], again.points[2][name]) for name in first.points[2])
    assert not torch.equal(first.points[0]["readout.weight"], first.points[2]["readout.weight"])


def test_tables_of_two_runs_are_compared_by_value_in_what_both_have(tmp_path, capsys):
    from benchmarks.default_run import different

    for run, value in (("new", 2.0), ("old", 3.0)):
        folder = tmp_path / run / "results" / "copying"
        folder.mkdir(parents=True)
        pd.DataFrame({"step": [0, 1], "value": [1.0, float("nan")]}).to_parquet(folder / "same.parquet")
        pd.DataFrame({"step": [0, 1], "value": [1.0, value]}).to_parquet(folder / "other.parquet")
        pd.DataFrame({"step": [0]}).to_parquet(folder / f"{run}_alone.parquet")
    more = pd.read_parquet(tmp_path / "new/results/copying/same.parquet").assign(other_seeds="none")
    more.to_parquet(tmp_path / "new/results/copying/same.parquet")
    assert different(tmp_path / "new", tmp_path / "old") == 1.0
    assert "other values: copying/other.parquet" in capsys.readouterr().err


def test_the_overhead_of_a_run_is_what_no_job_worked(tmp_path):
    from benchmarks.overhead import kinds, times

    logs = tmp_path / "copying" / "seed-0" / "logs"
    logs.mkdir(parents=True)
    (logs / "train.log").write_text("step 1\npeak memory: 506 MB\nprocessor time: 0.50 s to start, 7.00 s of work\n")
    (logs / "measure_sharpness.log").write_text("processor time: 0.25 s to start, 2.00 s of work\n")
    (logs / "measure_landscape.log").write_text("killed on the way\n")
    with pytest.raises(FileNotFoundError, match="no run has ended here"):
        times(tmp_path)
    (tmp_path / "logs").mkdir()
    line = "2026-01-01T00:00:00+00:00,2,9.0,1.0,11.75\n"
    (tmp_path / "logs" / "runs.csv").write_text(f"ended,jobs,seconds,main_process,all_processes\n{line}{line}")
    table = times(tmp_path).set_index("rule")
    assert table.loc[["train", "measure_sharpness"], ["start", "work"]].to_numpy().tolist() == [[0.5, 7.0], [0.25, 2.0]]
    assert table.loc["Snakemake itself", "start"] == pytest.approx(2.0)
    assert table.loc["between", "start"] == pytest.approx(2 * 11.75 - 2.0 - 9.75)
    found = kinds(tmp_path, str(REPOSITORY / "config/config.yaml"))
    assert found["seconds"].to_dict() == {"train": 7.5, "measure sharpness": 2.25}
    assert found.loc["train", ["work", "memory"]].tolist() == [1.0, 506.0]
    assert found.loc["measure sharpness", "work"] > 1e6 and found.loc["measure sharpness", "memory"] == 0
