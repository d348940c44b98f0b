"""Commutators of training batches: small trained runs, every number found again another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from learning_geometry.config import validate
from learning_geometry.geometry.commutators import commutator, defect, norm
from learning_geometry.geometry.curvature.products import gradient_with_graph
from learning_geometry.measurements.common.execution_basis import execution_basis, project, random_basis
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs import commutators
from learning_geometry.models.blocks import blocks
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import check_other_seeds
from learning_geometry.tasks.dataset import make_dataset, write_dataset
from learning_geometry.training.loop import train

from .conftest import defaults

SUMS = {"name": "marker_sums", "vocabulary": 16, "length": 7, "modulus": 4, "markers": [1, 2], "first_marker": 8}
SUMS |= {"test_sequences": 20}
PAIRS = {"name": "binary_operations", "prime": 7, "operation": "add"}
ENCODER = {"layers": 1, "heads": 2, "width": 8, "mlp_width": 8, "causal": False, "positions": "learned"}
SETTINGS = {"every": 20, "pairs": 3, "null_draws": 400, "finite_pairs": 2}
LAST = 60
STEP_SIZE = 1e-3


def trained(path, task, model, seed, batch_size=8):
    training = {"steps": LAST, "batch_size": batch_size, "evaluate_every": LAST, "evaluation_sequences": 5}
    training |= {"checkpoints": {"logarithmic": 2, "every": 10, "steps": [45]}}
    experiment = {"study": "execution_manifolds", "seeds": [0, 1], "task": task, "training": training}
    experiment |= {"model": model, "optimizer": {"name": "adamw", "learning_rate": 0.01}, "measurements": {}}
    experiment = validate({"experiments": {"tiny": experiment}, "figures": {}})["experiments"]["tiny"]
    dataset = make_dataset(experiment["task"], seed)
    train(experiment, seed, dataset, path / "training", {})
    write_dataset(path / "dataset.safetensors", dataset, {})
    return Run("tiny", seed, experiment, path / "training/checkpoints", path / "dataset.safetensors", path / "metrics")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose next seed is there too; final norm, learned positions and read-out as in the study."""
    model = {"layers": 2, "heads": 2, "width": 8, "positions": "learned", "final_norm": True, "readout": "last"}
    first, second = (trained(tmp_path_factory.mktemp(f"seed-{seed}"), SUMS, model, seed) for seed in (0, 1))
    return replace(first, others=(second,))


def measured(run, **settings):
    return commutators.measure(run, defaults(commutators.SETTINGS) | SETTINGS | settings)


@pytest.fixture(scope="module")
def table(run):
    return measured(run)


def rows(table, quantity, null="", **columns):
    chosen = table[(table["quantity"] == quantity) & (table["null"] == null)]
    for name, value in columns.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def value(*arguments, **columns):
    (found,) = rows(*arguments, **columns)["value"]
    return found


def batch_losses(run, step, pair, size=8):
    """The losses on the two batches of a pair, as the documentation says they are drawn, by plain autograd."""
    losses = []
    for side in (0, 1):
        generator = seeded(run.seed, "commutators", step, pair, side)
        drawn = run.task.training_batch(run.settings["task"], run.dataset.drawn_once, generator, size, step)
        tokens, targets = torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.targets)
        losses.append(
            lambda p, tokens=tokens, targets=targets: cross_entropy(
                run.model.forward(p, tokens, hook=lambda name, value: value), targets
            )
        )
    return losses


def stepped(parameters, loss, step_size):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    gradients = torch.autograd.grad(loss(leaves), list(leaves.values()))
    moved = {name: parameters[name] - step_size * g for name, g in zip(parameters, gradients, strict=True)}
    return moved, {name: g.numpy() for name, g in zip(parameters, gradients, strict=True)}


def energy(vectors, names=None):
    return sum(float(np.sum(vectors[name].astype(np.float64) ** 2)) for name in names or vectors)


def share(basis, vectors):
    return energy(project(basis, vectors)) / energy(vectors)


def by_hand(run, step, pair, step_size=1e-5, dtype=torch.float64):
    """delta / step_size² and both gradients, from steps in both orders."""
    parameters = {name: tensor.to(dtype) for name, tensor in run.parameters(step).items()}
    losses = batch_losses(run, step, pair)
    after_a, gradient_a = stepped(parameters, losses[0], step_size)
    after_b, gradient_b = stepped(parameters, losses[1], step_size)
    a_then_b, b_then_a = stepped(after_a, losses[1], step_size)[0], stepped(after_b, losses[0], step_size)[0]
    delta = {name: ((a_then_b[name] - b_then_a[name]) / step_size**2).numpy() for name in parameters}
    return delta, (gradient_a, gradient_b)


@pytest.fixture(scope="module")
def at_last(run):
    return [by_hand(run, LAST, pair) for pair in range(3)]


def test_defects_are_those_of_steps_in_both_orders(table, at_last):
    defects = [
        np.sqrt(energy(delta)) / np.prod([np.sqrt(energy(gradient)) for gradient in gradients])
        for delta, gradients in at_last
    ]
    of_pair = rows(table, "commutator_defect_of_pair", step=LAST)
    assert of_pair["index"].tolist() == [0, 1, 2]
    assert np.allclose(of_pair["value"], defects, rtol=1e-3)
    assert value(table, "commutator_defect", step=LAST) == pytest.approx(np.median(of_pair["value"]))
    scale_free = rows(table, "commutator_scale_free_defect_of_pair", step=LAST)["value"]
    assert value(table, "commutator_scale_free_defect", step=LAST) == pytest.approx(np.median(scale_free))
    assert ((scale_free > 0) & (scale_free <= 1)).all()
    assert set(rows(table, "commutator_defect")["n"]) == {3} and set(table["data"]) == {"training"}
    assert rows(table, "commutator_defect")["step"].tolist() == [0, 20, 40, 60]


def test_what_is_compared_with_the_next_seed_says_so(table):
    check_other_seeds(table, commutators.NEEDS["other_seeds"], "commutators")
    assert set(table.loc[table["other_seeds"] == "next", "null"]) == {"another_seed"}
    assert set(table.loc[table["null"] == "another_seed", "other_seeds"]) == {"next"}


def test_shares_are_those_of_projections_on_the_history_so_far(run, table, at_last):
    basis = execution_basis(run, LAST, 3)
    energies = np.array([share(basis, delta) for delta, _ in at_last])
    gradients = np.array([[share(basis, gradient) for gradient in both] for _, both in at_last])
    of_another = np.array([share(execution_basis(run.others[0], LAST, 3), delta) for delta, _ in at_last])
    expected = {"": np.sqrt(energies), "gradients": np.sqrt(gradients).mean(1), "another_seed": np.sqrt(of_another)}
    squared = {"": energies, "gradients": gradients.mean(1), "another_seed": of_another}
    for null, norms in expected.items():
        assert value(table, "commutator_share_norm", null, step=LAST) == pytest.approx(norms.mean(), rel=2e-3)
        assert value(table, "commutator_share_energy", null, step=LAST) == pytest.approx(squared[null].mean(), rel=2e-3)
    assert np.allclose(rows(table, "commutator_share_norm_of_pair", step=LAST)["value"], np.sqrt(energies), rtol=2e-3)
    # the numbers are told apart, and from those of the whole trajectory
    assert len({round(float(norms.mean()), 3) for norms in expected.values()}) == 3
    early = [by_hand(run, 40, pair)[0] for pair in range(3)]
    so_far, whole = (
        np.mean([np.sqrt(share(execution_basis(run, step, 3), delta)) for delta in early]) for step in (40, LAST)
    )
    assert value(table, "commutator_share_norm", step=40) == pytest.approx(so_far, rel=2e-3)
    assert abs(whole - so_far) > 0.01 * so_far
    row = rows(table, "commutator_share_norm", step=LAST).iloc[0]
    assert row["low"] < row["value"] < row["high"] and row["n"] == 3 and row["unit"] == "fraction"


def test_random_nulls_are_those_of_random_projections(run, table, at_last):
    basis, deltas = execution_basis(run, LAST, 3), [delta for delta, _ in at_last]
    directions, entries = 3 * len(basis), sum(array.size for array in deltas[0].values())
    generator = np.random.default_rng(0)
    whole = [np.concatenate([delta[name].ravel() for name in delta]) for delta in deltas]
    brute = {"random_within_matrices": [], "random_subspace": []}
    for _ in range(300):
        drawn = random_basis(basis, generator)
        brute["random_within_matrices"].append([share(drawn, delta) for delta in deltas])
        anywhere = random_basis({"all": np.empty((entries, directions))}, generator)
        brute["random_subspace"].append([share(anywhere, {"all": vector}) for vector in whole])
    for null, shares in brute.items():
        for quantity, values in (("norm", np.sqrt(shares)), ("energy", np.array(shares))):
            row = rows(table, f"commutator_share_{quantity}", null, step=LAST).iloc[0]
            means = values.mean(1)
            assert row["value"] == pytest.approx(means.mean(), abs=5 * means.std() / np.sqrt(300))
            spread = np.subtract(*np.quantile(means, [0.975, 0.025]))
            assert row["high"] - row["low"] == pytest.approx(spread, rel=0.25)
            assert row["n"] == 400
    energy_row = rows(table, "commutator_share_energy", "random_subspace", step=LAST).iloc[0]
    assert energy_row["value"] == pytest.approx(directions / entries, rel=0.05)


def test_block_shares_fill_the_commutator(run, table, at_last):
    of_blocks = blocks(at_last[0][0])
    found = rows(table, "commutator_block_share", step=LAST)
    assert found["part"].tolist() == list(of_blocks) and found["value"].sum() == pytest.approx(1)
    for null in ("gradients", "parameters"):
        assert rows(table, "commutator_block_share", null, step=LAST)["value"].sum() == pytest.approx(1)
    sizes = {name: array.size for name, array in at_last[0][0].items()}
    for block, names in of_blocks.items():
        where = {"part": block, "step": LAST}
        expected = np.mean([energy(delta, names) / energy(delta) for delta, _ in at_last])
        assert value(table, "commutator_block_share", **where) == pytest.approx(expected, rel=2e-3)
        of_gradients = np.mean([energy(g, names) / energy(g) for _, both in at_last for g in both])
        assert value(table, "commutator_block_share", "gradients", **where) == pytest.approx(of_gradients, rel=2e-3)
        parameters = sum(sizes[name] for name in names) / sum(sizes.values())
        assert value(table, "commutator_block_share", "parameters", **where) == pytest.approx(parameters)


def test_finite_steps_are_taken_in_their_own_arithmetic(run, table):
    basis = execution_basis(run, LAST, 3)
    double, single = (
        [by_hand(run, LAST, pair, STEP_SIZE, dtype)[0] for pair in (0, 1)] for dtype in (torch.float64, torch.float32)
    )
    norms = np.mean([np.sqrt(share(basis, delta)) for delta in double])
    found = rows(table, "commutator_share_norm_finite_float64", step=LAST).iloc[0]
    assert found["value"] == pytest.approx(norms, rel=1e-6) and found["n"] == 2
    differences = [{name: s[name] - d[name] for name in s} for s, d in zip(single, double, strict=True)]
    rounding = np.mean([np.sqrt(energy(x) / energy(d)) for x, d in zip(differences, double, strict=True)])
    # rounding by another implementation, as large but not the same
    assert value(table, "commutator_rounding_error", step=LAST) == pytest.approx(rounding, rel=0.3)
    assert rounding > 1e-3
    assert value(table, "commutator_share_norm_finite_float32", step=LAST) != found["value"]
    # finite steps in float64 are near their limit, the products in float32
    assert 0 < value(table, "commutator_step_error", step=LAST) < 0.1
    exact = np.mean([np.sqrt(energy(by_hand(run, LAST, pair)[0])) for pair in (0, 1)])
    assert np.mean([np.sqrt(energy(delta)) for delta in double]) == pytest.approx(exact, rel=0.05)
    defects = rows(table, "commutator_defect_of_pair", step=LAST)["value"][:2]
    assert value(table, "commutator_defect_finite_float64", step=LAST) == pytest.approx(np.median(defects), rel=0.05)


def test_smaller_steps_are_nearer_the_limit_and_round_more(run, table):
    smaller = measured(run, step_size=STEP_SIZE / 10, every=None, steps=[LAST])
    errors = [value(each, "commutator_step_error", step=LAST) for each in (table, smaller)]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.5)
    errors = [value(each, "commutator_rounding_error", step=LAST) for each in (table, smaller)]
    assert errors[1] > 3 * errors[0]


@pytest.mark.parametrize("factor", [1.0, 40.0, 100.0])
def test_products_keep_their_accuracy_where_the_loss_is_below_rounding(run, factor):
    """In float32 against all of it in float64, on answers that are the surer the larger the read-out."""
    sure = {name: tensor * (factor if "readout" in name else 1) for name, tensor in run.parameters(LAST).items()}
    double = {name: tensor.double() for name, tensor in sure.items()}
    tokens = torch.from_numpy(run.test_set("markers_1")["tokens"])
    logits = run.model.forward(double, tokens)
    # the surest sequences of all, in two batches
    top = logits[:, -1].topk(2).values
    order = (top[:, 1] - top[:, 0]).argsort()[:8]
    batches = [(tokens[half], logits.argmax(-1)[half]) for half in (order[::2], order[1::2])]
    losses = [commutators._loss_for_products(run, batch) for batch in batches]
    found, exact = (commutator(*(gradient_with_graph(loss, at) for loss in losses)) for at in (sure, double))
    assert found.delta.dtype == torch.float32
    assert norm(found.delta.double() - exact.delta) < 1e-3 * norm(exact.delta)
    assert defect(found) == pytest.approx(defect(exact), rel=1e-3)
    if factor == 100:
        assert float(losses[0](double)) < 1e-8


def test_without_a_basis_shares_are_left_out_and_defects_stay(run, table):
    measured_shares = table[table["quantity"].str.contains("share_norm|share_energy")]
    assert sorted(set(measured_shares["step"])) == [40, 60]  # 5 snapshots by step 40
    without = measured(run, directions=0, finite_pairs=0, every=None, steps=[20, 45])
    assert set(without["quantity"]) == {
        *(f"commutator_{kind}{of}" for kind in ("defect", "scale_free_defect") for of in ("", "_of_pair")),
        "commutator_block_share",
    }
    assert sorted(set(without["step"])) == [20, 45]
    where = {"quantity": "commutator_defect", "step": 20}
    assert value(without, **where) == value(table, **where)
    off_grid = measured(run, every=None, steps=[45])
    assert value(off_grid, "commutator_share_norm", step=45) > 0


def test_one_pair_has_no_interval_and_one_seed_no_other(run):
    table = measured(replace(run, others=()), pairs=1, finite_pairs=1, every=None, steps=[LAST])
    assert np.isnan(rows(table, "commutator_share_norm")["low"]).all()
    assert set(rows(table, "commutator_share_norm", "gradients")["n"]) == {1}
    assert "another_seed" not in set(table["null"])


def test_any_task_and_model_and_the_same_bits_again(tmp_path):
    run = trained(tmp_path, PAIRS, ENCODER, 0)
    first, again = (measured(run, every=LAST) for _ in range(2))
    assert np.array_equal(first["value"], again["value"], equal_nan=True)
    assert {"layers.0.mlp", "embedding", "readout"} <= set(first["part"])
    defects = [np.sqrt(energy(d) / (energy(g[0]) * energy(g[1]))) for d, g in (by_hand(run, LAST, i) for i in range(3))]
    assert np.allclose(rows(first, "commutator_defect_of_pair", step=LAST)["value"], defects, rtol=1e-3)
    # all 24 training pairs are one batch, always the same
    with pytest.raises(
        ValueError, match=r"tiny, seed 0, step 60: measurements\.commutators\.batch_size: batches of 24"
    ):
        measured(run, every=None, steps=[LAST], batch_size=24)


def test_steps_that_cannot_be_measured_are_named(run):
    with pytest.raises(ValueError, match="tiny has no checkpoint of step 33, only of"):
        measured(run, steps=[33, 40])
    with pytest.raises(ValueError, match="every is null and steps is empty"):
        measured(run, every=None)
