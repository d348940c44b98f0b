"""Claims about trajectories of training, commutators, attention, sparse latents and grokking; fixed before the runs.

Where the work gives no number, the choices made here (windows, margins, thresholds) are ours. Windows are fractions of
training, as the runs differ in length. Numbers called published that were read off a figure have its precision.

Sources: Xu, "Low-Dimensional Execution Manifolds in Transformer Learning Dynamics" (arXiv 2602.10496) and its released
code; for grokking the papers that follow it (arXiv 2602.16746 and 2602.16967).
"""

from typing import Literal

from learning_geometry.claims.claim import Claim, Comparison, Role, Series, Study, Window

PAPER = "Xu 2026 (arXiv 2602.10496)"
GROKKING_PAPERS = "Xu 2026 (arXiv 2602.16746, 2602.16967)"
STUDY_NAME = "execution_manifolds"

MATRICES = "attention_matrices"
"""The mean over the query, key, value and output matrices of all layers."""

TRAINING: Literal["training"] = "training"
EARLY = Window(0.1, 0.3, of=TRAINING)
MOST = Window(0.2, 1.0, of=TRAINING)
LATE = Window(0.9, 1.0, of=TRAINING)
LAST_ROW = Window(1.0, 1.0, of=TRAINING)
# a window of snapshots stands at its last step; of ten, the fourth is the first after 30 % of training
FIRST_WINDOW = Window(0.1, 0.1, of=TRAINING)
AFTER_COLLAPSE = Window(0.4, 0.4, of=TRAINING)

ROUNDING = 1.0e-4
"""Floor of shares computed by Hessian products in float32, whose relative error is 3e-5 at most, and of cosines."""

MARKERS = "markers_2"
"""The test set with two markers, which every set-up has."""

MOST_MARKERS = "most_markers"
"""The test set with most markers, whatever their number, on which latents are judged."""

ABLATED = 16
"""Latents ablated at a time: as many as are active in a state, by the published dictionary's k."""

GENERALISING = ["add", "subtract", "multiply", "square_sum"]
NOT_GENERALISING = ["quadratic_form", "cubic_form"]

WALKS = ("isotropic_walk", "step_norm_walk", "shuffled_increments", "random_signs", "ornstein_uhlenbeck")
"""Nulls of a trajectory that are random. Weight decay alone is not: it has rank one, and no trajectory is below it."""

SUMS = {
    "task.name": "marker_sums",
    "task.distractors": "published",
    "task.markers": {"longer_than": 1},
    "task.modulus": {"at_most": 8},
    "task.curriculum": 0,
    "training.initialisation_seed": None,
}
PUBLISHED_SUMS = {
    "training.steps": 20_000,
    "training.batch_size": 128,
    "training.checkpoints.every": 500,
    "optimizer.learning_rate": 3.0e-4,
    "optimizer.weight_decay": 0.01,
    "task.modulus": 8,
    "task.markers": [1, 2, 3, 4],
    "model.layers": 5,
    "model.width": 128,
    "model.heads": 4,
}
OPERATIONS = {
    "task.name": "binary_operations",
    "task.prime": {"at_most": 97},
    "model.norm": "pre",
    "training.initialisation_seed": None,
}
PUBLISHED_OPERATIONS = {
    "task.prime": 97,
    "training.batch_size": 512,
    "training.checkpoints.every": 100,
    "optimizer.learning_rate": 1.0e-3,
    "optimizer.weight_decay": 1.0,
    "model.layers": 2,
    "model.width": 128,
    "model.mlp_width": 256,
}
GROKKING = {"task.operation": {"one_of": GENERALISING}, "optimizer.weight_decay": {"at_least": 0.1}}

ROLES = {
    "marker_sums": Role(SUMS, PUBLISHED_SUMS),
    # where tokens that are not marked may be values too, a sum cannot be had without finding the markers
    "routed_marker_sums": Role(SUMS | {"task.distractors": "any"}, PUBLISHED_SUMS | {"task.distractors": "published"}),
    "shared_initialisation": Role(SUMS | {"training.initialisation_seed": {"given": True}}, PUBLISHED_SUMS),
    "one_marker": Role(SUMS | {"task.markers": [1]}, PUBLISHED_SUMS | {"task.markers": [1]}),
    "four_markers": Role(SUMS | {"task.markers": [4]}, PUBLISHED_SUMS | {"task.markers": [4]}),
    "grokking": Role(OPERATIONS | GROKKING, PUBLISHED_OPERATIONS),
    "not_grokking": Role(
        OPERATIONS | GROKKING | {"task.operation": {"one_of": NOT_GENERALISING}}, PUBLISHED_OPERATIONS
    ),
}

DIMENSION = Series("trajectory_r90", part=MATRICES)
WINDOWS = Series("window_participation_ratio_over_null", part=MATRICES, index=(0, 10_000))
SHARE = Series("commutator_share_norm", data=TRAINING)
SHARE_FLOAT64 = Series("commutator_share_norm_finite_float64", data=TRAINING)
SHARE_FLOAT32 = Series("commutator_share_norm_finite_float32", data=TRAINING)
ENTROPY_FIT = Series("held_out_error_saturating_coordinate", part="last_layer", data=MARKERS)
WARNED = Series("defect_crossing_before_grok")


def _below_null(null: str) -> Comparison:
    """Most attention matrices have an r90 below the 5 % quantile of this null."""
    below = Series(f"trajectory_r90_below_{null}", part=MATRICES)
    return Comparison(null, "level", {"window": LAST_ROW, "side": "above", "threshold": 0.5, "quantity": below})


def _falls(name: str, quantity: Series, arithmetic: str, floor: float) -> Claim:
    early_to_late = {"start": EARLY, "stop": LATE, "side": "below"}
    return Claim(
        name=name,
        study=STUDY_NAME,
        statement="The commutators' preference for the execution subspace falls with training, also relative to that "
        f"of the gradients, measured by finite steps in {arithmetic}.",
        source=PAPER,
        published="9.7 times the share of a random subspace early, 2.1 times late, in float32; the gradients' own "
        "share is not given",
        role="marker_sums",
        quantity=quantity,
        comparisons=(
            # a random subspace has the same share throughout
            Comparison("early_in_training", "change", early_to_late),
            Comparison("gradients", "change", early_to_late | {"baseline": "gradients", "reference": SHARE}),
        ),
        floor=floor,
        figure="commutator_alignment",
    )


CLAIMS = (
    Claim(
        name="trajectories_are_low_dimensional",
        study=STUDY_NAME,
        statement="The trajectories of the attention matrices are three- to four-dimensional (90 % of variance), and "
        "of lower dimension than random walks with the same snapshots.",
        source=PAPER,
        published="r90 per layer: Q 5.9 to 4.1, K 6.05 to 4.1, V 3.8 to 3.0, O 3.4 to 2.55 (read off a figure)",
        role="marker_sums",
        quantity=DIMENSION,
        comparisons=(
            # the mean of whole numbers that are three or four
            Comparison("four_dimensions", "level", {"window": LAST_ROW, "side": "below", "threshold": 4.5}),
            *(_below_null(null) for null in WALKS),
        ),
        floor=0.0,
        figure="trajectory_dimension",
    ),
    Claim(
        name="dimension_is_stable_over_seeds",
        study=STUDY_NAME,
        statement="The dimension of a matrix's trajectory differs by less than one between seeds (as that of random "
        "walks does, so that stability alone tells little).",
        source=PAPER,
        published="standard deviation over 20 seeds .3 to .7 (read off a figure)",
        role="marker_sums",
        quantity=Series("trajectory_r90_distance_from_other_seeds", part=MATRICES),
        comparisons=(Comparison("one_dimension", "level", {"window": LAST_ROW, "side": "below", "threshold": 1.0}),),
        floor=0.0,
        figure="trajectory_dimension",
    ),
    Claim(
        name="dimension_is_stable_over_markers",
        study=STUDY_NAME,
        statement="The dimension of the trajectories is the same, to within one, whether one marker is summed or four.",
        source=PAPER,
        published="the same for one to four markers",
        role="four_markers",
        reference="one_marker",
        quantity=DIMENSION,
        comparisons=(Comparison("one_marker", "difference", {"window": LAST_ROW, "side": "within", "margin": 1.0}),),
        floor=0.0,
        figure="trajectory_dimension",
    ),
    # of one initialisation and different data: different initialisations differ by the symmetries of the network alone
    Claim(
        name="orientation_differs_between_seeds",
        study=STUDY_NAME,
        statement="From one initialisation, trajectories on different data span subspaces that are no nearer to one "
        "another than random ones.",
        source=PAPER,
        published="different orientations in each seed (with different initialisations)",
        role="shared_initialisation",
        quantity=Series("orientation_rms_cosine", part=MATRICES, index=3),
        comparisons=(
            Comparison(
                "random_subspaces",
                "level",
                {"window": LAST_ROW, "side": "within", "paired": True, "margin": 0.1},
            ),
        ),
        floor=ROUNDING,
        figure="trajectory_orientation",
    ),
    # windows of equal numbers of snapshots, over what a walk with the same steps has: a short window falls by itself
    Claim(
        name="dimension_collapses_early",
        study=STUDY_NAME,
        statement="The dimension of the trajectory within a window of training, relative to a walk with the same "
        "steps, falls during the first 20 to 30 % of training, and no longer at the same pace afterwards.",
        source=PAPER,
        published="collapse in the first 20 to 30 % of training",
        role="marker_sums",
        quantity=WINDOWS,
        comparisons=(
            Comparison("first_tenth", "change", {"start": FIRST_WINDOW, "stop": AFTER_COLLAPSE, "side": "below"}),
            Comparison(
                "pace_before",
                "excess_over_trend",
                {"early": FIRST_WINDOW, "start": AFTER_COLLAPSE, "stop": LAST_ROW, "side": "above"},
            ),
        ),
        floor=0.0,
        figure="trajectory_windows",
    ),
    Claim(
        name="commutators_prefer_the_execution_subspace_early",
        study=STUDY_NAME,
        statement="Early in training the commutators of steps on two batches lie in the execution subspace more than "
        "in random subspaces, more than the gradients themselves, and more than in the subspace of another seed.",
        source=PAPER,
        published="shares (norm) of .012 to .128; early 9.7 times (about .074) and late 2.1 times (about .016) that of "
        "a random subspace which counts parameters that are never used; over those in use 5.8 and 1.25 times",
        role="marker_sums",
        quantity=SHARE,
        comparisons=(
            Comparison("random_subspace", "level", {"window": EARLY, "side": "above"}),
            Comparison("random_within_matrices", "level", {"window": EARLY, "side": "above"}),
            Comparison("gradients", "level", {"window": EARLY, "side": "above", "paired": True}),
            Comparison("another_seed", "level", {"window": EARLY, "side": "above", "paired": True}),
        ),
        floor=ROUNDING,
        figure="commutator_alignment",
    ),
    _falls("preference_falls_with_training", SHARE_FLOAT64, "float64", ROUNDING),
    # what float32 shows, rounding and all
    _falls("preference_falls_with_training_in_float32", SHARE_FLOAT32, "float32, where rounding is part of it", 0.0),
    Claim(
        name="non_commutativity_is_orthogonal",
        study=STUDY_NAME,
        statement="More than 92 % of the commutator is orthogonal to the execution subspace, and no less than to a "
        "random one of equal dimension.",
        source=PAPER,
        published="more than 92 % (one minus the share of the norm); 60 random directions leave more than 98 %",
        role="marker_sums",
        quantity=SHARE,
        comparisons=(
            Comparison("eight_percent", "level", {"window": MOST, "side": "below", "threshold": 0.08}),
            Comparison("random_subspace", "level", {"window": MOST, "side": "below", "limit": "high"}),
        ),
        floor=ROUNDING,
        figure="commutator_alignment",
    ),
    Claim(
        name="attention_saturates_along_the_routing_coordinate",
        study=STUDY_NAME,
        statement="The entropy of the last layer's attention saturates along the routing coordinate: on seeds left out "
        "of the fit, a saturating function of it errs less than a line, less than one of the training step, and less "
        "than any function of the step.",
        source=PAPER,
        published="sharp attention as saturation along routing coordinates; no comparison of fits",
        role="marker_sums",
        quantity=ENTROPY_FIT,
        comparisons=tuple(
            Comparison(
                other,
                "contrast",
                {
                    "window": LAST_ROW,
                    "side": "below",
                    "other": Series(f"held_out_error_{other}", part="last_layer", data=MARKERS),
                },
            )
            for other in ("line_coordinate", "saturating_step", "free_step")
        ),
        floor=0.0,
        figure="attention_concentration",
    ),
    Claim(
        name="sparse_latents_capture_routing",
        study=STUDY_NAME,
        statement="Sparse latents of the states that the last attention layer reads hold which marker a value belongs "
        "to, more than its position tells, and without the latents that tell most of it the sums fail more often than "
        "without random ones.",
        source=PAPER,
        published="latents tuned to markers; ablated where nothing reads them any more",
        role="routed_marker_sums",
        quantity=Series("decoding_accuracy", part="latents-marker", data=MOST_MARKERS),
        comparisons=(
            Comparison("shuffled_labels", "level", {"window": LAST_ROW, "side": "above"}),
            # markers come in order, so that any state that holds its position tells much of the marker
            Comparison("position_only", "level", {"window": LAST_ROW, "side": "above", "paired": True}),
            Comparison(
                "random_latents",
                "level",
                {
                    "window": LAST_ROW,
                    "side": "below",
                    "paired": True,
                    "baseline": "random",
                    "quantity": Series(
                        "accuracy_after_ablation", part="ablation-marker", data=MOST_MARKERS, index=ABLATED
                    ),
                },
            ),
        ),
        floor=0.0,
        figure="sparse_execution",
    ),
    # after the first marker the running sum is its value, and tells nothing of adding up
    Claim(
        name="sparse_latents_do_not_isolate_execution",
        study=STUDY_NAME,
        statement="Sparse latents do not hold the running sum, and without the latents that tell most of the value the "
        "sums fail as often as without random ones, to within 5 %.",
        source=PAPER,
        published="no effect of ablating latents (of states that nothing reads)",
        role="routed_marker_sums",
        quantity=Series("decoding_accuracy", part="latents-running_sum_after_first", data=MOST_MARKERS),
        comparisons=(
            Comparison("shuffled_labels", "level", {"window": LAST_ROW, "side": "below", "limit": "high"}),
            Comparison(
                "random_latents",
                "level",
                {
                    "window": LAST_ROW,
                    "side": "within",
                    "paired": True,
                    "margin": 0.05,
                    "baseline": "random",
                    "quantity": Series(
                        "accuracy_after_ablation", part="ablation-value", data=MOST_MARKERS, index=ABLATED
                    ),
                },
            ),
        ),
        floor=0.0,
        figure="sparse_execution",
    ),
    Claim(
        name="defect_onset_precedes_grokking",
        study=STUDY_NAME,
        statement="The commutator defect rises before a run groks, in most runs, and in runs that do not grok it "
        "mostly does not rise.",
        source=GROKKING_PAPERS,
        published="the onset precedes grokking in every run; runs that do not grok fire as well",
        role="grokking",
        reference="not_grokking",
        quantity=Series("grok_lead"),
        # the sign of the lead is known where one of the two never happened, which its mean would leave out
        comparisons=(
            Comparison("half_of_the_seeds", "crossed", {"event": WARNED, "side": "above"}),
            Comparison("false_alarms", "crossed", {"event": WARNED, "side": "below", "reference": True}),
        ),
        floor=0.0,
        figure="grokking_timeline",
    ),
    Claim(
        name="first_component_separates_grokking",
        study=STUDY_NAME,
        statement="The first principal component of the attention matrices' trajectories holds a larger share of the "
        "variance in runs that grok than in runs of operations that do not generalise, also with the direction of "
        "weight decay taken out.",
        source=GROKKING_PAPERS,
        published="63 to 83 % in runs that grok, 42 to 49 % for operations that do not",
        role="grokking",
        reference="not_grokking",
        quantity=Series("trajectory_pc1_share", part=MATRICES),
        comparisons=(
            Comparison("not_grokking", "difference", {"window": LAST_ROW, "side": "above"}),
            Comparison(
                "not_grokking_without_decay",
                "difference",
                {
                    "window": LAST_ROW,
                    "side": "above",
                    "quantity": Series("trajectory_pc1_share_without_initial_direction", part=MATRICES),
                },
            ),
        ),
        floor=0.0,
        figure="grokking_timeline",
    ),
)

STUDY = Study(
    STUDY_NAME, "Execution manifolds: trajectories, commutators, attention, sparse latents, grokking", ROLES, CLAIMS
)
