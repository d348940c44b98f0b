"""Claims about activations of contrastive prompts, layer by layer, and about directions that weights share.

Fixed before the runs. The work is a set of notes with figures of five models; where it gives no number, the choices
made here (thirds of the depth, margins, floors) are ours. Numbers called published were read off figures, to within
5 %. A language model is one run: its claims count prompts or layers, and say nothing of other models. They are judged
on every contrast that the config names; across models, on the first that all have.
"""

from typing import Literal

from learning_geometry.claims.claim import EACH, Claim, Comparison, Role, Series, Study

NOTES = "notes on change of basis, expansion and untangling, with figures of five models"
STUDY_NAME = "activation_geometry"

STREAMS = ("residual_pre", "residual_mid")
SETS = ("first", "second")

LAST_THIRD = (2 / 3, 1.0)

LOG_FLOOR = 0.01
"""Floor of logarithms: one percent of a variance, or of the error of a law."""

COSINE_FLOOR = 0.001
"""Floor of cosines of states captured in float32 from weights that may be rounded, and of accuracies."""

APART = 0.05
"""Two curves are apart where they differ by more than 5 %, and one curve where by less."""

ROLES = {
    "prompts": Role(
        {"prompts": {"filled": True}},
        {"model.source": "Llama-3.2-3B, Qwen-1.8B, Qwen2.5-7B, Qwen2.5-32B, Mistral-Nemo"},
    ),
}

EXPONENTIAL = "exponential_minus_power-mean_variance"
COSINES = (
    "cosine minimum and last value: Llama-3.2-3B .46 and .51, Qwen-1.8B .72 and .78, Qwen2.5-7B .645 and .87, "
    "Qwen2.5-32B .56 and .71, Mistral-Nemo .785 and .875"
)


Contrasts = Literal["contrast", "first contrast"]


def _grows() -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            f"layer_before-{EACH}-{each}-{stream}",
            "layers",
            {
                "side": "above",
                "previous": True,
                "first": 1,  # at the embedding a template's last token is the same for all prompts
                "logarithm": True,
                "quantity": Series(f"mean_variance-{each}", part=f"layers.*.{stream}", data=EACH),
            },
            each="contrast",
        )
        for each in SETS
        for stream in STREAMS
    )


def _exponential(stream: str, of: Contrasts = "contrast") -> tuple[Comparison, ...]:
    """Rows against every other law."""
    return tuple(
        Comparison(
            f"{null}-{EACH}-{stream}",
            "measured",
            {
                "side": "below",
                "threshold": 0.0,
                "floor": LOG_FLOOR,
                "quantity": Series(f"exponential_minus_{law}-mean_variance", part=stream, data=EACH),
            },
            each=of,
        )
        for law, null in (("power", "power_law"), ("square", "square_of_a_line"), ("linear", "line"))
    )


def _dips_and_rises(of: Contrasts = "contrast") -> tuple[Comparison, ...]:
    """Rows against 0, and against pairs whose prompts are swapped at random, whose means hardly differ."""
    rows = []
    for name, quantity, side in (
        ("middle", "cosine_middle_minus_first", "below"),
        ("last", "cosine_last_minus_middle", "above"),
    ):
        against = {"side": side, "quantity": Series(quantity, data=EACH)}
        swapped = against | {"baseline": "swapped_pairs"}
        rows.append(Comparison(f"{name}_unchanged-{EACH}", "measured", against | {"threshold": 0.0}, each=of))
        rows.append(Comparison(f"{name}_swapped_pairs-{EACH}", "measured", swapped, each=of))
    return tuple(rows)


def _separable() -> tuple[Comparison, ...]:
    accuracy = Series("separability", part="layers.*.residual_mid", data=EACH)
    late = {"side": "above", "quantity": accuracy, "depth": LAST_THIRD}
    gain = {"side": "above", "threshold": 0.0, "quantity": Series("separability_gain", data=EACH)}
    swapped, untrained = (late | {"baseline": null} for null in ("swapped_pairs", "untrained"))
    return (
        Comparison(f"untrained_gain-{EACH}", "measured", gain, each="contrast"),
        Comparison(f"swapped_pairs-{EACH}", "layers", swapped, unit="layer", each="contrast"),
        Comparison(f"untrained-{EACH}", "layers", untrained, unit="layer", each="contrast"),
    )


CLAIMS = (
    Claim(
        name="variance_grows_with_depth",
        study=STUDY_NAME,
        statement="The variance over prompts, mean over features, grows with depth: in most layers it is larger "
        "than in the layer before, in both sets and both streams.",
        source=NOTES,
        published="last mean variance, harmless and harmful: Llama-3.2-3B .33 and .10, Qwen-1.8B 8.1 and 2.9, "
        "Qwen2.5-7B 15.9 and 5.3, Qwen2.5-32B 68 and 39, Mistral-Nemo 2.1 and .93",
        role="prompts",
        quantity=Series("mean_variance-first", part="layers.*.residual_mid", data=EACH),
        comparisons=_grows(),
        floor=LOG_FLOOR,
        unit="layer",
        figure="contrast_by_layer",
    ),
    # a norm that grows linearly has a variance that is the square of a line, which looks exponential for a while
    Claim(
        name="variance_grows_exponentially",
        study=STUDY_NAME,
        statement="Fitted to the first two thirds of the layers, an exponential predicts the mean variance of the last "
        "third better than a power law, a line and the square of a line; that its own error is small is not said.",
        source=NOTES,
        published="near-exponential, by eye; no fit",
        role="prompts",
        quantity=Series(EXPONENTIAL, part=STREAMS[0], data=EACH),
        comparisons=tuple(row for stream in STREAMS for row in _exponential(stream)),
        floor=LOG_FLOOR,
        unit="prompt",
        figure="depth_growth",
    ),
    Claim(
        name="curves_of_both_streams_are_separate",
        study=STUDY_NAME,
        statement="The variances of the stream before the attention and before the MLP of a layer are apart beyond one "
        "smooth curve through both, on which the second lies half a layer further on: they differ from it by more than "
        "5 % in most layers.",
        source=NOTES,
        published="separate curves, by eye",
        role="prompts",
        quantity=Series("log_variance_difference", part="layers.*", data=EACH),
        comparisons=(
            Comparison(
                f"one_curve-{EACH}",
                "apart",
                {"margin": APART, "quantity": Series("log_variance_difference", part="layers.*", data=EACH)},
                each="contrast",
            ),
        ),
        floor=0.0,
        unit="layer",
        figure="contrast_by_layer",
    ),
    Claim(
        name="cosine_dips_and_rises",
        study=STUDY_NAME,
        statement="The cosine between the mean states of the two sets falls from the first to the middle third of the "
        "layers and rises to the last, more than with pairs swapped at random.",
        source=NOTES,
        published=COSINES,
        role="prompts",
        quantity=Series("cosine_middle_minus_first", data=EACH),
        comparisons=_dips_and_rises(),
        floor=COSINE_FLOOR,
        unit="prompt",
        figure="contrast_by_layer",
    ),
    Claim(
        name="sets_become_separable_with_depth",
        study=STUDY_NAME,
        statement="The two sets become linearly separable with depth: from the first to the last third of the layers a "
        "probe gains accuracy, more than in an untrained model, and in the last third it is above chance and above the "
        "untrained model in most layers.",
        source=NOTES,
        published="layers untangle; a hypothesis without a number",
        role="prompts",
        quantity=Series("separability_gain", data=EACH),
        comparisons=_separable(),
        floor=COSINE_FLOOR,
        unit="prompt",
        figure="untangling",
    ),
    Claim(
        name="weights_share_output_directions",
        study=STUDY_NAME,
        statement="The weights that write to the residual stream, of the attention and of the MLP, share output "
        "directions with those of other layers above chance, in most layers, also beyond writing more to some "
        "coordinates than to others.",
        source=NOTES,
        published="proposed as an experiment; no number",
        role="prompts",
        quantity=Series("mean_output_overlap", part="layers.*.output"),
        comparisons=tuple(
            Comparison(
                f"{null}-{weight}",
                "layers",
                {
                    "side": "above",
                    "baseline": null,
                    "quantity": Series("mean_output_overlap", part=f"layers.*.{weight}"),
                },
            )
            for weight in ("output", "down")
            for null in ("random_subspaces", "rows_permuted")
        ),
        floor=COSINE_FLOOR,
        unit="layer",
        figure="shared_directions",
    ),
    Claim(
        name="state_moves_in_similar_directions",
        study=STUDY_NAME,
        statement="Layer after layer the state moves in similar directions: what a layer adds has a larger cosine with "
        "what the layer before added than random directions have, in the mean and in most layers.",
        source=NOTES,
        published="offered as the reason of the growth; no number",
        role="prompts",
        quantity=Series("mean_increment_cosine", data=EACH),
        comparisons=(
            Comparison(
                f"random_directions-{EACH}",
                "measured",
                {
                    "side": "above",
                    "baseline": "random_directions",
                    "quantity": Series("mean_increment_cosine", data=EACH),
                },
                each="contrast",
            ),
            # a mean that few layers carry is not layer after layer
            Comparison(
                f"random_directions_by_layer-{EACH}",
                "layers",
                {
                    "side": "above",
                    "baseline": "random_directions",
                    "quantity": Series("increment_cosine", part="layers.*.residual_post", data=EACH),
                },
                unit="layer",
                each="contrast",
            ),
        ),
        floor=COSINE_FLOOR,
        unit="prompt",
        figure="depth_growth",
    ),
    Claim(
        name="variance_and_cosine_are_alike_across_models",
        study=STUDY_NAME,
        statement="Across models an exponential predicts the mean variance of the last third of the layers better than "
        "a power law, a line and the square of a line, and the cosine of the two sets falls to the middle of the "
        "layers and rises at the end.",
        source=NOTES,
        published=f"five models, all alike by eye; {COSINES}",
        role="prompts",
        quantity=Series("cosine_middle_minus_first", data=EACH),
        comparisons=(
            *(row for stream in STREAMS for row in _exponential(stream, "first contrast")),
            *_dips_and_rises("first contrast"),
        ),
        floor=COSINE_FLOOR,
        unit="model",
        figure="contrast_by_layer",
    ),
)

STUDY = Study(STUDY_NAME, "Activation geometry: contrasts, growth, untangling, shared directions", ROLES, CLAIMS)
