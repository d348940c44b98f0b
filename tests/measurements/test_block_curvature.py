import numpy as np
import pytest
import torch

from learning_geometry.geometry.head_products import query_key_products
from learning_geometry.geometry.subspaces import top_right_singular_subspace
from learning_geometry.measurements.runs import block_curvature
from learning_geometry.models.blocks import parts
from learning_geometry.models.evaluation import cross_entropy

from .conftest import write_errors

MODEL = {"layers": 2, "heads": 1, "width": 4}
SETTINGS = {
    "sequences": 5,
    "noise_sequences": 5,
    "tolerance": 0.05,
    "medium": 2,
    "bridge_rank": 2,
    "noise_pairs": 3,
    "null_draws": 4,
    "moments": [],
}


def scaled(factor):
    def change(parameters):
        for value in parameters.values():
            value *= factor

    return change


def dense_hessian(run, step, sequences=5):
    """Names of the parameters by coordinate, and the Hessian, row by row in float64."""
    batch = run.test_set("in_distribution", sequences)
    tokens, targets = torch.from_numpy(batch["tokens"]), torch.from_numpy(batch["targets"])
    parameters = {name: value.double() for name, value in run.parameters(step).items()}
    sizes = [value.numel() for value in parameters.values()]

    def loss(vector):
        pieces = vector.split(sizes)
        shaped = {name: p.view(v.shape) for (name, v), p in zip(parameters.items(), pieces, strict=True)}
        return cross_entropy(run.model.forward(shaped, tokens, twice_differentiable=True), targets)

    point = torch.cat([value.flatten() for value in parameters.values()])
    names = np.repeat(list(parameters), sizes)
    return names, torch.autograd.functional.hessian(loss, point).numpy()


@pytest.mark.parametrize("model", [{}, {"mlp_width": 3, "heads": 2}])
def test_eigenvalues_of_every_part_are_those_of_the_dense_hessian(make_run, measured, model):
    run = make_run(scaled(1.0), scaled(1.5), model=MODEL | model)
    table = measured(block_curvature, run, **SETTINGS | {"tolerance": 1e-4})
    names, hessian = dense_hessian(run, 10)
    found = table.find("block_largest_hessian_eigenvalue", step=10)
    of_parts = parts(run.parameters(10))
    assert found["part"].tolist() == list(of_parts)
    for row in found.to_dict("records"):
        chosen = np.isin(names, of_parts[row["part"]])
        exact = np.linalg.eigvalsh(hessian[np.ix_(chosen, chosen)])[-1]
        assert row["value"] == pytest.approx(exact, rel=1e-3, abs=1e-6)
        assert row["low"] <= row["value"] <= row["high"] and row["n"] == 5 and row["unit"] == "nats"
    null = table.find("block_largest_hessian_eigenvalue", step=10, null="untrained")
    first = table.find("block_largest_hessian_eigenvalue", step=0)
    assert null["value"].tolist() == first["value"].tolist() != found["value"].tolist()


def test_increases_are_the_mean_curvature_in_each_subspace(make_run, measured):
    run = make_run(scaled(1.3), model=MODEL)
    table = measured(block_curvature, run, **SETTINGS | {"noise_pairs": 40, "null_draws": 60, "noise_norm": 1e-3})
    names, hessian = dense_hessian(run, 0)
    arrays = run.arrays(0)
    embedded = np.linalg.svd(arrays["embedding.weight"].astype(float))[2].T
    at = "layers.1.attention"
    product = query_key_products(arrays[f"{at}.query.weight"], arrays[f"{at}.key.weight"], 1)[0]
    bases = {"top": embedded[:, :1], "medium": embedded[:, 1:3], "bottom": embedded[:, 3:]}
    bases["bridge"] = top_right_singular_subspace(product, 2)
    for weight in ("embedding", f"{at}.key"):
        matrix = arrays[f"{weight}.weight"]
        chosen = names == f"{weight}.weight"
        by_row = hessian[np.ix_(chosen, chosen)].reshape(*matrix.shape, *matrix.shape)
        partial = sum(by_row[i, :, i] for i in range(len(matrix)))
        scale = (1e-3 * np.linalg.norm(matrix)) ** 2 / (2 * len(matrix))
        for name, basis in bases.items():
            rank = basis.shape[1]
            row = table.find("noise_loss_increase", f"{weight}-{name}").iloc[0]
            expected = scale * np.trace(basis.T @ partial @ basis) / rank
            assert abs(row["value"] - expected) < 2 * (row["high"] - row["value"])
            null = table.find("noise_loss_increase", f"{weight}-{name}", null="random_subspace").iloc[0]
            assert null["low"] < null["value"] < null["high"] and null["n"] == 60
            error = (null["high"] - null["low"]) / 4 / np.sqrt(60)
            assert abs(null["value"] - scale * np.trace(partial) / 4) < 4 * error
    assert not table.find("noise_loss_increase")["part"].duplicated().any()


def test_subspaces_of_several_heads_are_those_of_all_heads_stacked(make_run):
    run = make_run(model={"heads": 2, "width": 16})
    arrays = run.arrays(0)
    settings = {"layer": 1, "top": 1, "medium": 5, "bridge_rank": 3}
    found = block_curvature._subspaces(arrays, settings, heads=2)
    assert {name: basis.shape for name, basis in found.items()} == {
        "top": (16, 1),
        "medium": (16, 5),
        "bottom": (16, 10),
        "bridge": (16, 3),
    }
    at = "layers.1.attention"
    products = query_key_products(arrays[f"{at}.query.weight"], arrays[f"{at}.key.weight"], 2)
    # what keys of any head read: top eigenvectors of the sum of W_QKᵀ W_QK
    vectors = np.linalg.eigh(sum(product.T @ product for product in products))[1][:, -3:]
    assert np.allclose(np.linalg.svd(vectors.T @ found["bridge"], compute_uv=False), 1.0)


def test_moments_are_relative_to_the_transition_of_the_run(make_run, measured):
    # checkpoints 0, 10, .., 50; error below .5 from step 25 on; 10 and 40 are its .4 and 1.6 fold
    run = write_errors(make_run(*[scaled(1 + 0.1 * i) for i in range(6)], model=MODEL), [0.9] * 5 + [0.4] + [0.1] * 5)
    table = measured(block_curvature, run, **SETTINGS | {"every": 50, "moments": [0.4, 1.6, 2.1]})
    moments = table.find("curvature_moment")
    assert moments["index"].tolist() == [40, 160, 210] and set(moments["step"]) == {50}
    assert moments["value"].tolist() == [10.0, 40.0, 50.0] and moments["censored"].tolist() == [False, False, True]
    on_grid = table.find("block_largest_hessian_eigenvalue", "embedding")
    assert on_grid["step"].tolist() == [0, 50]
    every = measured(block_curvature, run, **SETTINGS | {"every": 40})
    close = {"rel": 0.1}  # eigenvalues start from other vectors
    for quantity, part, null in (
        ("block_largest_hessian_eigenvalue", "matching", "untrained"),
        ("noise_loss_increase", "embedding-bottom", "random_subspace"),
    ):
        rows = table.find(f"{quantity}_at_moment", part)
        assert rows["index"].tolist() == [40, 160, 210] and set(rows["step"]) == {50}
        assert rows["censored"].tolist() == [False, False, True] and np.isnan(rows["value"].iloc[2])
        expected = every.value(quantity, part, step=40)
        assert table.value(f"{quantity}_at_moment", part, index=160) == pytest.approx(expected, **close)
        assert len(table.find(f"{quantity}_at_moment", part, null=null)) == 3


def test_without_a_transition_every_moment_is_censored(make_run, measured):
    run = write_errors(make_run(scaled(1.0), scaled(1.1), model=MODEL), [0.9] * 3)
    table = measured(block_curvature, run, **SETTINGS | {"moments": [0.5, 1.0]})
    assert table.find("curvature_moment")["censored"].all()
    rows = table.find("block_largest_hessian_eigenvalue_at_moment")
    assert len(rows) == 2 * len(parts(run.parameters(0))) and rows["value"].isna().all() and rows["censored"].all()


def test_same_run_same_bits(make_run, measured):
    run = make_run(model=MODEL)
    first, second = (measured(block_curvature, run, **SETTINGS).table["value"].to_numpy() for _ in range(2))
    assert np.array_equal(first, second)


def test_what_is_wrong_is_named(make_run, measured):
    run = make_run(model=MODEL)
    with pytest.raises(ArithmeticError, match=r"tiny seed 0 step 0: .* of embedding did not converge in 2 products"):
        measured(block_curvature, run, **SETTINGS | {"maximum_products": 2})
    with pytest.raises(ValueError, match="layer: 2 in a model of 2 layers"):
        measured(block_curvature, run, **SETTINGS | {"layer": 2})
    with pytest.raises(ValueError, match="leave nothing of width 4"):
        measured(block_curvature, run, **SETTINGS | {"medium": 3})
    with pytest.raises(ValueError, match="no running_error"):
        errors = write_errors(run, [0.9], data="in_distribution")
        measured(block_curvature, errors, **SETTINGS | {"moments": [1.0]})
