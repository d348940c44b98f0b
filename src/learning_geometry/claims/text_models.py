"""Claims about small language models of text that the workflow trains itself; fixed before the runs that judge them.

Windows are fractions of training, or relative to t, the step at which the largest induction score of all heads has made
half of its rise. Where a work gives no number, the choices made here (windows, margins, rank 10 of a match) are ours.

Sources: Li et al. 2025, "Tracing the representation geometry of language models from pretraining to post-training"
(arXiv 2509.23024); Olsson et al. 2022, "In-context learning and induction heads"; and the works of the other studies,
whose claims are asked of text here.
"""

from math import log
from typing import Any

from learning_geometry.claims.claim import Claim, Comparison, Role, Series, Study, Window

PHASES_PAPER = "Li et al. 2025 (arXiv 2509.23024)"
INDUCTION_PAPER = "Olsson et al. 2022 (In-context learning and induction heads)"
SUBSPACES_PAPER = "Wang et al. 2025 (arXiv 2508.16929)"
COMPOSITION_PAPER = "Song, Xu & Zhong 2025 (arXiv 2408.09503)"
TRAJECTORY_PAPER = "Xu 2026 (arXiv 2602.10496)"
STUDY_NAME = "text_models"

HELD_OUT, REPEATED = "held_out", "repeated"
FINAL = "final_stream"

END = Window(0.9, 1.0, of="training")
LAST_ROW = Window(1.0, 1.0, of="training")
BEFORE, AFTER = Window(0.5, 0.75), Window(1.1, 1.5)

LEAST_PHASE_OF_RANK = log(1.1)
"""A tenth: changes of the effective rank by less are no phase."""

LEAST_PHASE_OF_EXPONENT = 0.1

RANK_FLOOR = 0.03
"""Floor of ranks in shares of the width, as of those of language models (``attention_subspaces``)."""

SCORE_FLOOR = 0.05
"""Floor of attention: what the largest score of all heads must rise by to have a time at which it rose."""

ROUNDING = 1.0e-4
"""Floor of cosines of weights in float32 (``orthogonal_subspaces``)."""

WALKS = ("isotropic_walk", "step_norm_walk", "shuffled_increments", "random_signs", "ornstein_uhlenbeck")
"""Nulls of a trajectory that are random."""

TEXT = {
    "task.name": "text",
    "model.layers": {"at_least": 2},
    "model.mlp_width": {"at_least": 1},
    "model.readout": "all",
    "training.initialisation_seed": None,
}

ROLES = {
    "text": Role(TEXT, {}),
    "phases": Role(TEXT, {"model.width": "768 to 5120", "training.steps": "143 000"}),
    "rotary": Role(TEXT | {"model.positions": "rotary"}, {}),
}

INDUCTION = Series("largest_induction_score", data=REPEATED)
PREVIOUS_TOKEN = Series("largest_previous_token_score", data=REPEATED)
HALF_RISE = Series("induction_score_rise_step", index=50, data=REPEATED)
SAVED = Series("loss_saved_by_repetition", data=REPEATED)
MATCH = Series("circuit_match_rms_cosine", index=10)


def _phases(name: str, quantity: str, what: str, published: str, least: float) -> Claim:
    """Three changes, each above a margin; where one is below it in all seeds the phase is not there."""

    def phase(index: int) -> Series:
        return Series(f"{quantity}_phase", part=FINAL, data=HELD_OUT, index=index)

    return Claim(
        name=name,
        study=STUDY_NAME,
        statement=what,
        source=PHASES_PAPER,
        published=published,
        role="phases",
        quantity=phase(0),
        comparisons=tuple(
            Comparison(
                f"{null}_margin",
                "level",
                {"window": LAST_ROW, "side": "above", "threshold": least, "quantity": phase(index)},
            )
            for index, null in enumerate(("warm_up", "entropy_seeking", "compression_seeking"))
        ),
        floor=0.0,
        figure="text_training",
    )


def _mean_rank(kind: str, part: str) -> Series:
    return Series(kind, part=part, data=HELD_OUT)


def _attention_below_others(name: str, kind: str, what: str, published: str) -> Claim:
    quantity = _mean_rank(kind, "attention.output")
    others = {"mlp_output": "mlp.output", "residual_mid": "residual_mid", "residual_post": "residual_post"}
    below: dict[str, Any] = {"window": END, "side": "below"}
    return Claim(
        name=name,
        study=STUDY_NAME,
        statement=f"At the end of training attention outputs {what} than MLP outputs, than the residual stream, and "
        "than as many isotropic vectors, in the mean over layers.",
        source=SUBSPACES_PAPER,
        published=published,
        role="text",
        quantity=quantity,
        comparisons=(
            *(
                Comparison(other, "contrast", below | {"other": _mean_rank(kind, part)})
                for other, part in others.items()
            ),
            Comparison("isotropic", "level", below),
        ),
        floor=RANK_FLOOR,
        figure="rank_over_training",
    )


CLAIMS = (
    _phases(
        "effective_rank_has_three_phases",
        "effective_rank_of_variances",
        "Over training the effective rank of the last layer's stream falls, then rises, then falls again, each time by "
        "a tenth or more.",
        "three phases in models of 160M to 12B parameters: collapse in warm-up, expansion, consolidation",
        LEAST_PHASE_OF_RANK,
    ),
    _phases(
        "power_law_exponent_has_three_phases",
        "power_law_exponent",
        "Over training the exponent of the last layer's spectrum rises, then falls, then rises again, each time by 0.1 "
        "or more.",
        "decay of the spectrum in the same three phases; no number in the abstract",
        LEAST_PHASE_OF_EXPONENT,
    ),
    _attention_below_others(
        "attention_outputs_use_fewer_directions",
        "directions_99",
        "need fewer directions for 99 % of their variance",
        "about 60 % of directions for 99 % of the variance of attention outputs (finished models)",
    ),
    _attention_below_others(
        "attention_outputs_have_lower_effective_rank",
        "effective_rank",
        "have a lower effective rank",
        "effective rank about 60 %, against about 90 % of MLP outputs and the residual stream (finished models)",
    ),
    Claim(
        name="attention_outputs_become_low_dimensional",
        study=STUDY_NAME,
        statement="Training makes attention outputs low-dimensional: they need fewer directions at its end than before "
        "it, in the mean over layers.",
        source="ours: the works measure finished models",
        published="",
        role="text",
        quantity=_mean_rank("directions_99", "attention.output"),
        comparisons=(Comparison("untrained", "level", {"window": END, "side": "below", "paired": True}),),
        floor=RANK_FLOOR,
        figure="rank_over_training",
    ),
    Claim(
        name="induction_heads_form",
        study=STUDY_NAME,
        statement="Some head comes to attend to the token after the match on random repeated tokens, and the model "
        "predicts the second copy better than the first.",
        source=INDUCTION_PAPER,
        published="in all models of two layers and more",
        role="text",
        quantity=INDUCTION,
        comparisons=(
            Comparison("uniform_attention", "level", {"window": END, "side": "above"}),
            Comparison("untrained", "level", {"window": END, "side": "above", "paired": True}),
            Comparison("no_loss_saved", "level", {"window": END, "side": "above", "threshold": 0.0, "quantity": SAVED}),
        ),
        floor=SCORE_FLOOR,
        figure="text_training",
    ),
    Claim(
        name="induction_comes_in_a_transition",
        study=STUDY_NAME,
        statement="Induction comes in a transition: the largest induction score goes from a tenth to nine tenths of "
        "its rise in less time than it took to get to a tenth.",
        source=INDUCTION_PAPER,
        published="a phase change early in training",
        role="text",
        quantity=INDUCTION,
        comparisons=(
            Comparison(
                "time_to_a_tenth",
                "duration",
                {
                    "first": Series("induction_score_rise_step", index=10, data=REPEATED),
                    "second": Series("induction_score_rise_step", index=90, data=REPEATED),
                    "grid": INDUCTION,
                },
            ),
        ),
        floor=0.0,
        figure="text_training",
    ),
    Claim(
        name="previous_token_heads_rise_with_induction",
        study=STUDY_NAME,
        statement="Some head comes to attend to the previous token when induction rises.",
        source=INDUCTION_PAPER,
        published="previous-token heads are what induction heads are made with",
        role="text",
        quantity=PREVIOUS_TOKEN,
        event=HALF_RISE,
        comparisons=(
            Comparison("uniform_attention", "level", {"window": END, "side": "above"}),
            Comparison("induction_half_rise", "crossing", {"margin": 0.25}),
        ),
        floor=SCORE_FLOOR,
        figure="text_training",
    ),
    Claim(
        name="subspace_match_rises_with_induction",
        study=STUDY_NAME,
        statement="The match of what the previous-token head writes with what the induction head reads is above chance "
        "and above that of other heads at the end of training, and rises when induction does.",
        source=COMPOSITION_PAPER,
        published="rises at the transition of copying",
        role="rotary",
        quantity=MATCH,
        event=HALF_RISE,
        comparisons=(
            Comparison("random_subspaces", "level", {"window": END, "side": "above"}),
            Comparison("other_heads", "level", {"window": END, "side": "above"}),
            Comparison("before_the_rise", "change", {"start": BEFORE, "stop": AFTER, "side": "above"}),
        ),
        floor=ROUNDING,
        figure="text_training",
    ),
    Claim(
        name="first_component_exceeds_random_walks",
        study=STUDY_NAME,
        statement="The first principal component of the trajectory of all weights holds a larger share of its variance "
        "than that of random walks with the same snapshots.",
        source=TRAJECTORY_PAPER,
        published="trajectories of three to four dimensions (of the attention matrices, in marker sums)",
        role="text",
        quantity=Series("trajectory_pc1_share", part="model"),
        comparisons=tuple(Comparison(walk, "level", {"window": LAST_ROW, "side": "above"}) for walk in WALKS),
        floor=0.0,
        figure="trajectory_dimension",
    ),
)

STUDY = Study(
    STUDY_NAME,
    "Text: small language models that the workflow trains; t is the step of half of induction's rise",
    ROLES,
    CLAIMS,
)
