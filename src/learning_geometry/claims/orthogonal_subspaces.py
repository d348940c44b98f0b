"""Claims about copying, induction and the subspaces of the embedding; fixed before the runs that judge them.

Windows are relative to t, the first evaluation with an out-of-distribution error below .5. Where a work gives
no number, the choices made here (windows, margins, rank 10 of the bridge, a tenth as "no longer") are ours.

Sources: Song, Xu and Zhong, "Out-of-distribution generalization via composition: a lens through induction heads
in Transformers", PNAS 2025 (arXiv 2408.09503), its published checkpoints, and Zhong's notes that follow it.
"""

from typing import Any

from learning_geometry.claims.claim import Claim, Comparison, Role, Series, Study, Window

PAPER = "Song, Xu & Zhong 2025 (arXiv 2408.09503)"
NOTES = "Zhong, notes that follow arXiv 2408.09503"
STUDY_NAME = "orthogonal_subspaces"

IN, OUT = "in_distribution", "out_of_distribution"

BEFORE = Window(0.5, 0.75)
AT = Window(0.9, 1.1)
AFTER = Window(1.1, 1.5)
LATE = Window(0.9, 1.0, of="training", not_before=1.5)
END = Window(0.9, 1.0, of="training")
FINISHED = Window(1.0, 1.0, of="training", not_before=1.1)
"""The last checkpoint, of a run that made its transition well before: what is expensive is measured at few steps."""

TRANSITION = Series("first_step_below_0.5", data=OUT)
FIRST = Series("first_step_below_0.9", data=OUT)
# rows of the landscape stand at the last step of a run, whatever the step of their checkpoint
LAST_ROW = Window(1.0, 1.0, of="training")
PLATEAU = "plateau_0.5"
"""Half way to the transition: nothing has begun to fall there, and the start is forgotten."""

LAST = Series("first_step_below_0.2", data=OUT)
RUNNING_ERROR = Series("running_error", data=OUT)

ROUNDING = 1.0e-4
"""Floor of cosines and energies of subspaces: float32 rounding of weights (6e-8), magnified where neighbouring
singular values differ by a thousandth."""

TWO_LAYERS = {
    "task.name": "copying",
    "model.layers": 2,
    "model.heads": 1,
    "model.mlp_width": 0,
    # a larger one hurries all that the claims are about, and changes the sharpness that training allows: quick runs on
    # reduced tasks, which need one, are shown but not judged
    "optimizer.learning_rate": {"at_most": 1.0e-3},
}
PUBLISHED = {
    "training.steps": 20_000,
    "training.batch_size": 50,
    "optimizer.learning_rate": 1.0e-3,
    "optimizer.weight_decay": 5.0e-4,
    "task.vocabulary": 64,
    "task.length": 64,
    "model.width": 64,
    "model.dropout": 0.1,
    "model.positions": "rotary",
}

ROLES = {
    "two_layers": Role(TWO_LAYERS | {"task.pool_size": None, "model.positions": "rotary"}, PUBLISHED),
    "one_layer": Role(TWO_LAYERS | {"model.layers": 1, "task.pool_size": None, "model.positions": "rotary"}, PUBLISHED),
    "small_pool": Role(
        # how many segments are few depends on the task: the published threshold is of this one
        TWO_LAYERS
        | {"task.pool_size": {"at_most": 700}, "model.positions": "rotary"}
        | {key: PUBLISHED[key] for key in ("task.vocabulary", "task.length", "model.width")}
        | {"task.segment_length": [10, 19]},
        PUBLISHED | {"training.steps": 10_000},
    ),
}


def _head_score(name: str, quantity: Series, statement: str) -> Claim:
    return Claim(
        name=name,
        study=STUDY_NAME,
        statement=statement,
        source=PAPER,
        published="rises where the error falls",
        role="two_layers",
        quantity=quantity,
        event=TRANSITION,
        comparisons=(
            Comparison("uniform_attention", "level", {"window": END, "side": "above"}),
            Comparison("transition_step", "crossing", {"margin": 0.25}),
        ),
        floor="evaluation_noise",
        figure="transition_timeline",
    )


def _bridge(part: str) -> Series:
    return Series("bridge_energy_key", part=f"embedding.{part}", index=10)


def _block(part: str) -> Series:
    return Series("block_largest_hessian_eigenvalue_at_moment", part=part, data=IN)


# the middle of BEFORE, nearly; and as late as a run of 3500 steps still has for a transition at 2800
MOMENTS: dict[str, Any] = {"start": 60, "stop": 125, "side": "above"}


def _rise_in_blocks(part: str, statement: str) -> Claim:
    # some block's eigenvalue always rises: it must, and by a larger factor than that of all blocks in neither group
    return Claim(
        name=f"sharpness_rises_in_{part}_blocks",
        study=STUDY_NAME,
        statement=statement,
        source=NOTES,
        published="",
        role="two_layers",
        quantity=_block(part),
        event=TRANSITION,
        comparisons=(
            Comparison("before_the_transition", "growth", MOMENTS),
            Comparison("rest", "growth", MOMENTS | {"against": _block("rest")}),
        ),
        floor="estimator_error",
        figure="curvature_localisation",
    )


POSITION_DISSOCIATION = Series("previous_token_score_dissociation", part="layers.0.query_key", data=OUT)
MATCH = Series("subspace_match_rms_cosine", part="layers.1", index=10)
FIRST_GAP = Series("singular_value_gap", part="embedding", index=1, relative_to="gaussian_matrix")
LOWER_GAP = Series("singular_value_gap", part="embedding", index=(20, 50), relative_to="gaussian_matrix")

CLAIMS = (
    Claim(
        name="transition_is_sharp",
        study=STUDY_NAME,
        statement="Once the out-of-distribution error is below .9, it falls below .2 in less time than it took to "
        "get there.",
        source=PAPER,
        published="one run: below .9 at step 2024, below .2 at step 3160, so 1136 after 2024 steps (−888)",
        role="two_layers",
        quantity=RUNNING_ERROR,
        comparisons=(Comparison("time_to_0.9", "duration", {"first": FIRST, "second": LAST, "grid": RUNNING_ERROR}),),
        floor="evaluation_noise",
        figure="transition_timeline",
    ),
    Claim(
        name="one_layer_cannot",
        study=STUDY_NAME,
        statement="With one layer there is no transition: the out-of-distribution error stays above .9.",
        source=PAPER,
        published="no transition within 20\u00a0000 steps",
        role="one_layer",
        quantity=Series("error", data=OUT),
        comparisons=(
            Comparison(
                "error_0.9", "level", {"window": Window(1.0, 1.0, "training"), "side": "above", "threshold": 0.9}
            ),
        ),
        floor="evaluation_noise",
        steps_to_support=20_000,
        figure="transition_timeline",
    ),
    Claim(
        name="in_distribution_plateau_precedes",
        study=STUDY_NAME,
        statement="Before the out-of-distribution error falls, the in-distribution error sits on the plateau of "
        "predicting the most frequent token.",
        source=PAPER,
        published="0.911, one minus the largest token probability",
        role="two_layers",
        quantity=Series("running_error", data=IN),
        event=FIRST,
        comparisons=(
            Comparison(
                "constant_prediction",
                "level",
                {
                    "window": Window(0.5, 0.75),
                    "side": "within",
                    "paired": True,
                    "margin": 0.02,
                    "reference": Series("error", data=IN),
                },
            ),
        ),
        floor="evaluation_noise",
        figure="transition_timeline",
    ),
    _head_score(
        "previous_token_score_rises_with_the_transition",
        Series("previous_token_score", part="layers.0", data=OUT),
        "Layer 1 comes to attend to the previous token when the out-of-distribution error falls.",
    ),
    _head_score(
        "induction_score_rises_with_the_transition",
        Series("induction_score", part="layers.1", data=OUT),
        "Layer 2 comes to attend to the token after the match when the out-of-distribution error falls.",
    ),
    Claim(
        name="subspace_match_peaks_at_the_transition",
        study=STUDY_NAME,
        statement="The match of what layer 1 writes with what layer 2 reads peaks at the transition, above chance.",
        source=PAPER,
        published="a peak at the transition",
        role="two_layers",
        quantity=MATCH,
        event=TRANSITION,
        comparisons=(
            Comparison("random_subspaces", "level", {"window": AT, "side": "above"}),
            Comparison("before_the_transition", "change", {"start": BEFORE, "stop": AT, "side": "above"}),
            Comparison("end_of_training", "change", {"start": AT, "stop": LATE, "side": "below"}),
        ),
        floor=ROUNDING,
        figure="subspace_match",
    ),
    Claim(
        name="bridge_leaves_the_medium_subspace",
        study=STUDY_NAME,
        statement="After the transition the bridge leaves the embedding's medium subspace and becomes nearly "
        "orthogonal to it.",
        source=NOTES,
        published="nearly orthogonal to the medium subspace",
        role="two_layers",
        quantity=_bridge("medium"),
        event=TRANSITION,
        comparisons=(
            Comparison("random_subspace", "level", {"window": LATE, "side": "below"}),
            Comparison("at_the_transition", "change", {"start": AT, "stop": LATE, "side": "below"}),
        ),
        floor=ROUNDING,
        steps_to_reject=20_000,
        figure="bridge_energy",
    ),
    Claim(
        name="bridge_enters_the_bottom_subspace",
        study=STUDY_NAME,
        statement="After the transition the bridge moves into the embedding's bottom subspace.",
        source=NOTES,
        published="correlated with the bottom subspace",
        role="two_layers",
        quantity=_bridge("bottom"),
        event=TRANSITION,
        comparisons=(
            Comparison("random_subspace", "level", {"window": LATE, "side": "above"}),
            Comparison("at_the_transition", "change", {"start": AT, "stop": LATE, "side": "above"}),
        ),
        floor=ROUNDING,
        steps_to_reject=20_000,
        figure="bridge_energy",
    ),
    Claim(
        name="bridge_aligns_with_the_top_direction_late",
        study=STUDY_NAME,
        statement="Late in training the bridge aligns with the embedding's top direction.",
        source=NOTES,
        published="correlated with the top subspace",
        role="two_layers",
        quantity=_bridge("top"),
        event=TRANSITION,
        comparisons=(
            Comparison("random_subspace", "level", {"window": LATE, "side": "above"}),
            Comparison("at_the_transition", "change", {"start": AT, "stop": LATE, "side": "above"}),
        ),
        floor=ROUNDING,
        steps_to_reject=20_000,
        figure="bridge_energy",
    ),
    Claim(
        name="embedding_splits_into_three_groups_late",
        study=STUDY_NAME,
        statement="Late in training the embedding's singular values form three groups: one large, about 35 medium, "
        "the rest small, with gaps wider than in a Gaussian matrix.",
        source="published checkpoints of arXiv 2408.09503",
        published="1 + 34 + 29 at 20\u00a0000 steps; σ35/σ36 = 1.02 at 2000, 1.31 at 10 000, 2.13 at 20 000",
        role="two_layers",
        quantity=LOWER_GAP,
        event=TRANSITION,
        comparisons=(
            Comparison(
                "gaussian_matrix_first_gap",
                "level",
                {"window": LATE, "side": "above", "threshold": 1.0, "quantity": FIRST_GAP},
            ),
            Comparison("gaussian_matrix_lower_gap", "level", {"window": LATE, "side": "above", "threshold": 1.0}),
            Comparison("at_the_transition", "change", {"start": AT, "stop": LATE, "side": "above"}),
        ),
        floor=ROUNDING,
        steps_to_reject=20_000,
        figure="embedding_singular_values",
    ),
    Claim(
        name="layer_1_stops_using_content",
        study=STUDY_NAME,
        statement="Layer 1 stops using the content of tokens: its attention logits come to depend on position alone.",
        source=NOTES,
        published="",
        role="two_layers",
        quantity=Series("attention_logit_share_content", part="layers.0", data=OUT),
        event=TRANSITION,
        comparisons=(
            Comparison("untrained", "level", {"window": LATE, "side": "below", "paired": True}),
            Comparison("before_the_transition", "change", {"start": BEFORE, "stop": LATE, "side": "below"}),
            Comparison("a_tenth", "level", {"window": LATE, "side": "below", "threshold": 0.1}),
        ),
        floor=ROUNDING,  # computed from the weights, without sampling
        figure="layer_one_logits",
    ),
    # each function in the layer that performs it, with the other layer intact: layer 2 cannot match without layer 1, so
    # one ablation of both layers could never spare the induction score. Of layer 2 the queries, which read the token to
    # be matched from the embedding: keys read what layer 1 has written, and ablations of both together cancel in the
    # contrast even in an ideal circuit. Above zero as well as above chance, which is not zero for unequal groups.
    Claim(
        name="subspaces_are_functionally_distinct",
        study=STUDY_NAME,
        statement="The embedding's subspaces are functionally distinct and complementary: layer 1's attention to the "
        "previous position needs the bottom subspace more than the medium one, and layer 2's queries, which match "
        "tokens, need the medium subspace more than the bottom one, each by more than random subspaces of the same "
        "dimensions.",
        source=NOTES,
        published="functionally distinct and complementary: binding the previous position against matching tokens",
        role="two_layers",
        quantity=Series("induction_score_dissociation", part="layers.1.query", data=OUT),
        event=TRANSITION,
        comparisons=(
            Comparison("zero_matching", "level", {"window": FINISHED, "side": "above", "threshold": 0.0}),
            Comparison(
                "zero_previous_position",
                "level",
                {"window": FINISHED, "side": "above", "threshold": 0.0, "quantity": POSITION_DISSOCIATION},
            ),
            Comparison(
                "random_subspace_matching",
                "level",
                {"window": FINISHED, "side": "above", "baseline": "random_subspace"},
            ),
            Comparison(
                "random_subspace_previous_position",
                "level",
                {
                    "window": FINISHED,
                    "side": "above",
                    "baseline": "random_subspace",
                    "quantity": POSITION_DISSOCIATION,
                },
            ),
        ),
        floor="estimator_error",
        # the notes describe the subspaces at the end of long training; the embedding splits late
        steps_to_reject=20_000,
        figure="subspace_function",
    ),
    Claim(
        name="removing_the_bridge_destroys_copying",
        study=STUDY_NAME,
        statement="After the transition, removing the bridge from what layer 2's keys read raises the "
        "out-of-distribution error above that of removing random subspaces of the same rank, or of the same Frobenius "
        "norm.",
        source=NOTES,
        published="",
        role="two_layers",
        quantity=Series("error_after_ablation", part="layers.1.key-bridge", data=OUT, index=10),
        event=TRANSITION,
        comparisons=(
            Comparison("random_subspace", "level", {"window": FINISHED, "side": "above"}),
            Comparison("equal_norm_ablation", "level", {"window": FINISHED, "side": "above"}),
        ),
        floor="estimator_error",
        figure="subspace_function",
    ),
    Claim(
        name="sharpness_rises_through_the_transition",
        study=STUDY_NAME,
        statement="The sharpness of the in-distribution loss rises through the transition, by more than its trend "
        "before.",
        source=NOTES,
        published="",
        role="two_layers",
        quantity=Series("largest_hessian_eigenvalue", data=IN),
        event=TRANSITION,
        comparisons=(
            Comparison("before_the_transition", "change", {"start": BEFORE, "stop": AFTER, "side": "above"}),
            Comparison(
                "trend_before",
                "excess_over_trend",
                {"early": Window(0.2, 0.4), "start": BEFORE, "stop": AFTER, "side": "above"},
            ),
        ),
        floor="estimator_error",
        figure="sharpness",
    ),
    _rise_in_blocks(
        "positional",
        "Through the transition the sharpness rises in the blocks that find the previous position, the embedding with "
        "layer 1's queries and keys, by a larger factor than in the rest.",
    ),
    _rise_in_blocks(
        "matching",
        "Through the transition the sharpness rises in the blocks that match subspaces, layer 1's values and outputs "
        "with layer 2's queries and keys, by a larger factor than in the rest.",
    ),
    # Of the distribution, not of a few sequences: directions and descent are found on some sequences and judged on
    # others. Too few of them, or too few steps, make a saddle look like a minimum, so those rows cannot speak against
    # it. The smallest eigenvalue can: few sequences make it more negative than it is (in the mean), not less. So this
    # claim is mostly supported or left open; to reject it takes very many sequences.
    Claim(
        name="plateau_is_a_saddle",
        study=STUDY_NAME,
        statement="The plateau before the transition is a saddle: descent without noise leaves it, and the loss falls, "
        "in the mean of both sides, along a direction of negative curvature, more than at the solution.",
        source=NOTES,
        published="",
        role="two_layers",
        quantity=Series("loss_drop_along_most_negative_direction", part=PLATEAU, data="held_out"),
        comparisons=(
            Comparison("evaluation_error", "level", {"window": LAST_ROW, "side": "above", "threshold": 0.0}, False),
            Comparison("solution", "level", {"window": LAST_ROW, "side": "above", "paired": True}, False),
            Comparison("random_direction", "level", {"window": LAST_ROW, "side": "above", "paired": True}, False),
            Comparison(
                "half_way_to_the_solution",
                "level",
                {
                    "window": LAST_ROW,
                    "side": "above",
                    "threshold": 0.5,
                    "quantity": Series("descent_error_share", part=PLATEAU, data="held_out"),
                },
                False,
            ),
            # the tolerance of the eigenvalues: nearer to zero they are not told from it
            Comparison(
                "spectral_floor",
                "level",
                {
                    "window": LAST_ROW,
                    "side": "below",
                    "threshold": -3.0e-3,
                    "quantity": Series("smallest_to_largest_eigenvalue", part=PLATEAU, data=IN),
                },
            ),
        ),
        floor="estimator_error",
        figure="landscape",
    ),
    Claim(
        name="small_pools_never_transition",
        study=STUDY_NAME,
        statement="With at most 700 segments to learn from, the out-of-distribution error never falls below .5.",
        source=PAPER,
        published="no generalisation at 10 000 steps up to 700 segments, full from 750 on",
        role="small_pool",
        quantity=RUNNING_ERROR,
        comparisons=(Comparison("half_of_the_seeds", "crossed", {"event": TRANSITION, "side": "below"}),),
        floor=0.0,
        steps_to_support=10_000,
        figure="pool_threshold",
    ),
)

STUDY = Study(STUDY_NAME, "Orthogonal subspaces: copying, induction, sharpness", ROLES, CLAIMS)
