"""Synthetic tables of known structure, such as the measurements of copying runs would give."""

import functools
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

LAST_STEP = 3500
TRANSITIONS = (1800, 2100, 2000, 2300, 2600)
TASK = {"vocabulary": 64, "zipf_offset": 2.7}


def sigmoid(steps, transition, width=120.0):
    return 1 / (1 + np.exp((transition - steps) / width))


def copying_rows(seed, layers, crosses):
    noise = np.random.default_rng([seed, layers])
    often, seldom = np.arange(0, LAST_STEP + 1, 50), np.arange(0, LAST_STEP + 1, 500)
    # a run that never crosses has its transition far beyond the last step
    transition = TRANSITIONS[seed % 5] if crosses else 10 * LAST_STEP
    rows = []
    for data, start, n in (("out_of_distribution", 0.984, 500), ("in_distribution", 0.911, 500)):
        for quantity, steps in (("running_error", often), ("error", seldom)):
            value = start * (1 - 0.97 * sigmoid(steps, transition)) + noise.normal(0, 0.004, len(steps))
            rows += [
                {"quantity": quantity, "data": data, "step": s, "value": v, "n": n, "unit": "fraction"}
                for s, v in zip(steps.tolist(), value.clip(0, 1).tolist(), strict=True)
            ]
        rows += [
            {
                "quantity": "running_loss",
                "data": data,
                "step": s,
                "value": 0.3 + 3.8 * (1 - v),
                "n": 500,
                "unit": "nats",
            }
            for s, v in zip(often.tolist(), sigmoid(often, transition).tolist(), strict=True)
        ]
        floor = {"null": "constant_prediction", "value": start, "low": start, "high": start, "unit": "fraction"}
        rows += [floor | {"quantity": "error", "data": data, "step": s} for s in seldom.tolist()]
        rows.append(
            {
                "quantity": "first_step_below_0.5",
                "data": data,
                "step": LAST_STEP,
                "value": transition if crosses else LAST_STEP,
                "censored": not crosses,
                "unit": "steps",
            }
        )
    for step in range(0, LAST_STEP + 1, 100):
        for layer in range(layers):
            for quantity, level, null in (
                ("previous_token_score", 0.85, 0.06),
                ("induction_score", 0.7, 0.02),
            ):
                ours = layer == (0 if quantity == "previous_token_score" else layers - 1) and layers > 1
                score = null + ours * level * sigmoid(step, transition - 100) + abs(noise.normal(0, 0.01))
                row = {"part": f"layers.{layer}", "quantity": quantity, "data": "out_of_distribution"}
                row |= {"step": step, "unit": "fraction"}
                rows.append(row | {"value": float(score)})
                rows.append(row | {"value": null, "low": null, "high": null, "null": "uniform_attention"})
    for step in seldom.tolist():
        value = 8 + 30 * sigmoid(step, transition) * np.exp(noise.normal(0, 0.2))
        row = {
            "quantity": "largest_hessian_eigenvalue",
            "data": "in_distribution",
            "step": step,
            "unit": "nats",
        }
        rows.append(row | {"value": float(value), "low": value - 0.01, "high": value + 0.01})
        rows.append(row | {"value": 8.0, "low": 7.99, "high": 8.01, "null": "untrained"})
    return rows


def geometry_rows(seed, width=64):
    """Composition, bridge and logits of a run that makes the transition."""
    noise = np.random.default_rng([seed, 7])
    transition = TRANSITIONS[seed % 5]
    ranks = np.array([5, 10, 15, 20])
    sizes = np.array([1, 34, 29]) / width
    lags = np.arange(36)
    rows = []

    def jitter(value, spread=0.01):
        return (np.asarray(value) + noise.normal(0, spread, np.shape(value))).clip(0)

    for step in range(0, LAST_STEP + 1, 100):
        grown = float(sigmoid(step, transition))
        late = float(sigmoid(step, transition + 500))
        here = {"step": step, "part": "layers.1"}
        score = here | {"quantity": "composition_z_score"}
        mismatch = here | {"quantity": "token_mismatch", "unit": "fraction"}
        turned = {"null": "random_weights", "n": 100}
        rows += [
            score | {"value": float(jitter(7.5 * grown, 0.2))},
            score | turned | {"value": 0.0, "low": -0.25, "high": 0.25},
            mismatch | {"value": float(jitter(0.98 - 0.95 * grown).clip(0, 1))},
            mismatch | turned | {"value": 0.984, "low": 0.95, "high": 1.0},
        ]
        for name, null in (("largest", np.array([0.44, 0.67, 0.81, 0.90])), ("rms", np.sqrt(ranks / width))):
            match = here | {"quantity": f"subspace_match_{name}_cosine", "index": ranks}
            drawn = {"null": "random_subspaces", "n": 1000, "value": null, "low": null - 0.08, "high": null + 0.08}
            rows += [match | {"value": jitter(null + (0.97 - null) * grown).clip(0, 1)}, match | drawn]
        energies = {
            "key": np.array([0.02 + 0.05 * late, 0.53 - 0.45 * late, 0.45 + 0.4 * late]),
            "query": np.array([0.02, 0.53 + 0.3 * grown, 0.45 - 0.3 * grown]),
        }
        for side, energy in energies.items():
            for name, share, size in zip(("top", "medium", "bottom"), energy, sizes, strict=True):
                row = {"step": step, "part": f"embedding.{name}", "unit": "fraction"}
                drawn = {"null": "random_subspace", "n": 1000, "value": size}
                drawn |= {"low": max(size - 0.07, 0.0), "high": size + 0.07}
                at_rank = row | {"quantity": f"bridge_energy_{side}", "index": np.array([5, 10, 20])}
                rows += [at_rank | {"value": jitter(np.full(3, share))}, at_rank | drawn]
                if step % 500 == 0:
                    at_lag = row | {"quantity": f"bridge_energy_{side}_at_lag", "index": lags}
                    rows += [at_lag | {"value": jitter(size + (share - size) * np.exp(-lags / 8))}, at_lag | drawn]
        untrained = {"null": "untrained"}
        content = 0.9 - 0.85 * grown
        logits = {"share_content": content, "share_position": 0.95 - content, "share_interaction": 0.05}
        starts = {"share_content": 0.9, "share_position": 0.05, "share_interaction": 0.05}
        for name, value in logits.items():
            row = {"step": step, "part": "layers.0", "data": "out_of_distribution", "unit": "fraction"}
            row |= {"quantity": f"attention_logit_{name}"}
            rows += [row | {"value": float(jitter(value))}, row | untrained | {"value": starts[name]}]
        row = {"step": step, "part": "layers.0", "data": "out_of_distribution", "quantity": "attention_logit_variance"}
        rows += [row | {"value": 0.1 * np.exp(5 * grown + noise.normal(0, 0.1))}, row | untrained | {"value": 0.1}]
    return rows


def function_rows(seed):
    """Ablations with a double dissociation: layer 2's queries need the medium subspace, its keys the bottom one."""
    noise = np.random.default_rng([seed, 5])
    transition = TRANSITIONS[seed % 5]
    scores = {"previous_token_score": 0.6, "induction_score": 0.8, "error": -0.9, "loss": -1.0}
    needs = {"layers.0.query_key": "", "layers.0.value_output": "medium", "layers.1.query_key": "medium bottom"}
    needs |= {"layers.1.query": "medium", "layers.1.key": "bottom", "readout": "bottom"}
    rows = []
    for step in (1000, 2000, 3000, 3500):
        grown = float(sigmoid(step, transition))
        here = {"step": step, "data": "out_of_distribution", "n": 50}

        def add(part, kind, lost, random, reaches, here=here, grown=grown, index=0):
            for name in reaches:
                size = scores[name] * grown
                unit = "nats" if name == "loss" else "fraction"
                for quantity, start in ((f"{name}_change_{kind}", 0.0), (f"{name}_{kind}", size + (size < 0))):
                    row = here | {"part": part, "quantity": quantity, "index": index, "unit": unit}
                    value = start - size * lost * (1 + noise.normal(0, 0.02))
                    rows.append(row | {"value": value, "low": value - 0.02, "high": value + 0.02})
                    for null, share in (("random_subspace", random), ("equal_norm_ablation", (lost + random) / 2)):
                        value = start - size * share
                        drawn = {"null": null, "n": 6, "value": value, "low": value - 0.03, "high": value + 0.03}
                        rows.append(row | drawn)

        for name, size in scores.items():
            unit = "nats" if name == "loss" else "fraction"
            row = here | {"quantity": f"{name}_intact", "unit": unit}
            rows.append(row | {"value": size * grown + (size < 0)})
        names = list(scores)
        for component, needed in needs.items():
            first = {"layers.0.query_key": 0, "readout": 2}.get(component, 1)
            for group, random in (("top", 0.01), ("medium", 0.5), ("bottom", 0.4)):
                part = f"{component}-embedding.{group}"
                lost = 0.9 if group in needed else 0.01
                add(part, "after_ablation", lost, random, names[first:])
                if first == 0:
                    add(part, "after_ablation_mean_kept", 0.0, 0.1, names)
        for component in ("layers.1.key", "layers.0.output"):
            for rank in (5, 10):
                part = f"{component}-bridge"
                add(part, "after_ablation", 0.08 * rank, 0.05, names[1:], index=rank)
                add(part, "kept_alone", 1 - 0.08 * rank, 0.9, names[1:], index=rank)
    return rows


COPY_STARTS = (6, 35)
SEGMENT = 25


def attention_rows(seed, layers=2, censored=False, length=64):
    """Uniform attention, then the previous token in layer 1 and the token after the match in layer 2."""
    first, second = COPY_STARTS
    steps = (1000 + 100 * seed, 2000 + 100 * seed, LAST_STEP)
    queries, keys = np.tril_indices(length)
    uniform = 1 / (1 + queries)
    in_second = (queries >= second) & (queries < second + SEGMENT)
    previous = np.where(queries == 0, 1.0, keys == queries - 1)
    induction = np.where(in_second, keys == queries - second + first + 1, uniform)
    here = {"step": LAST_STEP, "data": "out_of_distribution"}
    rows = [
        here | {"quantity": "attention_step", "index": i, "value": s, "unit": "steps", "censored": censored and i < 2}
        for i, s in enumerate(steps)
    ]
    positions = {"first_start": first, "second_start": second, "segment_length": SEGMENT}
    rows += [here | {"quantity": name, "value": value} for name, value in positions.items()]
    for step, grown in zip(steps, (0.0, 0.5, 0.95), strict=True):
        for layer in range(layers):
            pattern = (1 - grown) * uniform + grown * (previous if layer == 0 else induction)
            row = {"step": step, "part": f"layers.{layer}.heads.0", "quantity": "attention", "unit": "fraction"}
            rows.append(row | {"data": here["data"], "index": queries * length + keys, "value": pattern})
    return rows


def spectrum_rows(seed, width=64):
    noise = np.random.default_rng([seed, 99])
    index = np.arange(1, width + 1)
    gaussian = np.linspace(2, 0.01, width) ** 1.1 * 4
    gaussian *= 30 / np.linalg.norm(gaussian)
    rows = []
    for step in range(0, LAST_STEP + 1, 100):
        grown = step / LAST_STEP
        value = gaussian * np.where(index <= 35, 1 + 0.8 * grown, 1 - 0.7 * grown)
        value[0] *= 1 + 1.5 * grown
        value = np.sort(value * np.exp(noise.normal(0, 0.02, width)))[::-1]
        null = gaussian * np.linalg.norm(value) / 30
        share = value / value.sum()
        rank = float(np.exp(-(share * np.log(share)).sum()))
        row = {"part": "embedding", "step": step}
        drawn = {"null": "gaussian_matrix", "n": 200}
        spectrum = row | {"quantity": "singular_value", "index": index}
        rows += [
            spectrum | {"value": value},
            spectrum | drawn | {"value": null, "low": 0.95 * null, "high": 1.05 * null},
            row
            | {"quantity": "significant_gap", "index": index[:-1]}
            # after the first from half of training on, after the 35th late and for some seeds alone
            | {"value": ((index == 1) * (grown > 0.5) + (index == 35) * (grown > 0.7 + 0.05 * seed))[:-1] * 1.0},
            row | {"quantity": "effective_rank", "value": rank},
            row | drawn | {"quantity": "effective_rank", "value": 50.0, "low": 49.0, "high": 51.0},
        ]
    return rows


BLOCK_SHARES = {  # of all parameters; and of the top eigenvector before and after
    "embedding": (0.1, 0.01, 0.02),
    "layers.0.attention.query_key": (0.2, 0.01, 0.5),
    "layers.0.attention.value_output": (0.2, 0.15, 0.08),
    "layers.1.attention.query_key": (0.2, 0.01, 0.05),
    "layers.1.attention.value_output": (0.19, 0.15, 0.05),
    "norms": (0.01, 0.02, 0.02),
    "readout": (0.1, 0.65, 0.28),
    "positional": (0.3, 0.02, 0.52),
    "matching": (0.4, 0.16, 0.13),
    "rest": (0.3, 0.82, 0.35),
}


def curvature_rows(seed, reached):
    """The rest of what ``sharpness`` gives, and ``block_curvature``: positional curvature appears at the transition."""
    noise = np.random.default_rng([seed, 11])
    transition = TRANSITIONS[seed % 5]
    spectral = {"data": "in_distribution", "unit": "nats"}
    rows = []
    for name, value in (("smallest_hessian_eigenvalue", -1.0), ("hessian_trace", 200.0), ("sharpness_proxy", 1e-4)):
        for step in (0, 3500):
            here = spectral | {"step": step, "quantity": name}
            drawn = value * (1 + step / 3500) * float(noise.normal(1, 0.05))
            rows += [here | {"value": drawn}, here | {"value": value, "null": "untrained"}]
    for step in range(0, LAST_STEP + 1, 500):
        grown = float(sigmoid(step, transition))
        for part, (share, before, after) in BLOCK_SHARES.items():
            row = {"step": step, "part": part, "quantity": "top_eigenvector_mass", "data": "in_distribution"}
            row |= {"unit": "fraction"}
            rows += [
                row | {"value": before + (after - before) * grown},
                row | {"value": share, "low": share - 0.01, "high": share + 0.01, "null": "random_direction"},
            ]
    places = {("", 0, 0): 0.0, ("", 3500, 0): 1.0}
    for index, multiple in ((60, 0.0), (100, 0.5), (125, 1.0)):
        there = reached or index < 125
        places["_at_moment", 3500, index] = multiple if there else np.nan
        moment = {"step": 3500, "quantity": "curvature_moment", "index": index, "unit": "steps"}
        rows.append(moment | {"value": float(transition * index // 100 if there else 3500), "censored": not there})
    for (suffix, step, index), grown in places.items():
        here = spectral | {"step": step, "index": index, "censored": bool(np.isnan(grown))}
        for part, (_, before, after) in BLOCK_SHARES.items():
            value = 2 * before * (after / before) ** grown * float(noise.normal(1, 0.05))
            row = here | {"part": part, "quantity": f"block_largest_hessian_eigenvalue{suffix}"}
            rows += [row | {"value": value}, row | {"value": 0.1, "null": "untrained", "censored": False}]
        for weight, scale in (("embedding", 1e-5), ("layers.1.attention.key", 1e-6)):
            for subspace, factor in (("top", 4.0), ("medium", 1.0), ("bottom", 0.3), ("bridge", 2.0)):
                row = here | {"part": f"{weight}-{subspace}", "quantity": f"noise_loss_increase{suffix}"}
                value = scale * 10**grown
                drawn = {"null": "random_subspace", "n": 10, "value": value, "low": 0.6 * value, "high": 1.4 * value}
                rows += [row | {"value": factor * value * float(noise.normal(1, 0.05))}, row | drawn]
    return rows


def gather(*tables):
    # read-only, so that tests can share them
    return MappingProxyType({"summary": summarize(tables), "runs": pd.concat(tables, ignore_index=True)})


@pytest.fixture(scope="session")
def copying_tables():
    @functools.cache
    def make(seeds=5, crossing=5, control=3):
        runs = [tidy(copying_rows(seed, 2, seed < crossing), "copying", seed) for seed in range(seeds)]
        runs += [tidy(copying_rows(seed, 1, False), "copying_one_layer", seed) for seed in range(control)]
        return gather(*runs)

    return make


@pytest.fixture(scope="session")
def spectrum_tables():
    @functools.cache
    def make(seeds=5):
        return gather(*(tidy(spectrum_rows(seed), "copying", seed) for seed in range(seeds)))

    return make


@pytest.fixture(scope="session")
def geometry_tables():
    """All that is measured of runs of two layers."""

    @functools.cache
    def make(seeds=5, crossing=5):
        rows = [
            [*copying_rows(seed, 2, seed < crossing), *geometry_rows(seed), *spectrum_rows(seed)]
            for seed in range(seeds)
        ]
        return gather(*(tidy(of_seed, "copying", seed) for seed, of_seed in enumerate(rows)))

    return make


@pytest.fixture(scope="session")
def function_tables():
    @functools.cache
    def make(seeds=5, crossing=5):
        rows = [[*copying_rows(seed, 2, seed < crossing), *function_rows(seed)] for seed in range(seeds)]
        return gather(*(tidy(of_seed, "copying", seed) for seed, of_seed in enumerate(rows)))

    return make


@pytest.fixture(scope="session")
def curvature_tables():
    """Sharpness of copying runs and where it sits; seeds from ``reached`` on end before 1.25 times their transition."""

    @functools.cache
    def make(seeds=5, reached=5):
        rows = [[*copying_rows(seed, 2, True), *curvature_rows(seed, seed < reached)] for seed in range(seeds)]
        return gather(*(tidy(of_seed, "copying", seed) for seed, of_seed in enumerate(rows)))

    return make


@pytest.fixture(scope="session")
def attention_tables():
    @functools.cache
    def make(seeds=(0,), layers=2, censored=False):
        return gather(*(tidy(attention_rows(seed, layers, censored), "copying", seed) for seed in seeds))

    return make


@pytest.fixture
def timeline_options():
    names = ["copying", "copying_one_layer"]
    return {"experiments": names, "tasks": dict.fromkeys(names, TASK)}
