"""Claims about the subspaces of attention outputs, and about dead latents of dictionaries; fixed before the runs.

Where the work gives no number, the choices made here (what "most" is, margins, floors) are ours. A language model is
one run: its claims count layers, or dictionary seeds, and say nothing of other models, unless they count models. What
is said of attention must hold on every text that the config names, and of dictionaries, of those that are told by
their settings (:data:`DICTIONARIES`).

Source: Wang et al. 2025 (arXiv 2508.16929), whose first version counts directions for 99 % of the variance, and whose
third counts the effective rank. That centring alone might keep latents alive is of Simon, Adams and Zou 2026
(arXiv 2605.31518).
"""

from typing import Literal

from learning_geometry.claims.claim import ANY_INDEX, EACH, Claim, Comparison, Role, Series, Study

PAPER = "Wang et al. 2025 (arXiv 2508.16929)"
RIVAL = "Simon, Adams and Zou 2026 (arXiv 2605.31518)"
STUDY_NAME = "attention_subspaces"

ATTENTION, TRANSCODER = "layers.*.attention.output", "layers.*.mlp"
OTHERS = {
    "mlp_output": "layers.*.mlp.output",
    "residual_pre": "layers.*.residual_pre",
    "residual_mid": "layers.*.residual_mid",
}
"""What attention outputs are compared with: both streams, before the attention and before the MLP."""

RANK_FLOOR = 0.03
"""Floor of ranks in shares of the width: at the numbers of tokens used here, twice as many still change the directions
of attention outputs by 0.024."""

DICTIONARY_FLOOR = 0.002
"""One latent of the smallest dictionary, of 576."""

VARIANCE_MARGIN = 0.01
"""By how much less variance a dictionary may explain and count as equally good."""

FEWEST_DEAD = 0.05
"""Share of dead latents below which there is nothing to cut."""

_STANDARD = {"target": "attention", "subspace": "none", "centred": False}
_TRANSCODER = {"target": "transcoder", "subspace": "none", "centred": False}
DICTIONARIES = {
    "standard": _STANDARD,
    "standard_small": _STANDARD,
    "standard_centred": _STANDARD | {"centred": True},
    "active_subspace": _STANDARD | {"subspace": "active"},
    "active_subspace_centred": _STANDARD | {"subspace": "active", "centred": True},
    "transcoder_standard": _TRANSCODER,
    "transcoder_active_subspace": _TRANSCODER | {"subspace": "active"},
}
"""What the claims call dictionaries -> their settings in the sweep; those of one claim are alike in all others, and of
one size, but for the small one."""

ROLES = {
    "language_model": Role(
        {"texts": {"filled": True}}, {"model.source": "several families, dictionaries of 1M latents"}
    ),
}


def _rank(kind: str, part: str) -> Series:
    return Series(kind, part=part, data=EACH)


def _below_others(
    name: str,
    kind: str,
    what: str,
    published: str,
    suffix: str = "",
    aside: str = "",
    unit: Literal["layer", "model"] = "layer",
    where: str = "in most layers",
) -> Claim:
    """Attention outputs have a lower rank of some kind than the MLP's outputs and the residual stream."""
    quantity = kind + suffix
    attention = _rank(quantity, ATTENTION)
    comparisons = [
        Comparison(
            f"{other}-{EACH}",
            "layers",
            {"side": "below", "quantity": attention, "other": _rank(quantity, part)},
            each="text",
        )
        for other, part in OTHERS.items()
    ]
    # short texts make everything low-dimensional
    isotropic = {"side": "below", "quantity": attention, "baseline": "isotropic"}
    comparisons.append(Comparison(f"isotropic-{EACH}", "layers", isotropic, each="text"))
    return Claim(
        name=name,
        study=STUDY_NAME,
        statement=f"Attention outputs {what} than MLP outputs, than the residual stream, and than as many isotropic "
        f"vectors, {where}{aside}.",
        source=PAPER,
        published=published,
        role="language_model",
        quantity=attention,
        comparisons=tuple(comparisons),
        floor=RANK_FLOOR,
        unit=unit,
        figure="activation_ranks",
    )


def _lowered(kind: str) -> Comparison:
    """The rank of W_O z is below that of z, white within heads."""
    return Comparison(
        f"z_{kind}-{EACH}",
        "layers",
        {
            "side": "below",
            "quantity": _rank(f"projected_{kind}", ATTENTION),
            "other": _rank(f"white_z_{kind}", "layers.*.attention.z"),
        },
        each="text",
    )


def _explained(cause: str) -> Comparison:
    """Undoing a cause undoes most of the drop from z to W_O z."""
    return Comparison(
        f"half_of_the_drop-{EACH}",
        "layers",
        {"side": "above", "threshold": 0.5, "quantity": _rank("drop_explained", f"layers.*.{cause}")},
        each="text",
    )


def _beyond(null: str, kind: str = "directions_99") -> Comparison:
    """The rank of the output is below that of a W_O without a cause beyond chance, or of a random one."""
    return Comparison(
        f"{null}_{kind}-{EACH}",
        "layers",
        {"side": "below", "quantity": _rank(f"projected_{kind}", ATTENTION), "baseline": null},
        each="text",
    )


def _of_dictionary(quantity: str, dictionary: str, part: str = ATTENTION) -> Series:
    return Series(quantity, part=part, data=dictionary, index=ANY_INDEX)


def _cuts(
    name: str, statement: str, source: str, published: str, dictionary: str, baseline: str, part: str = ATTENTION
) -> Claim:
    """One way to start a dictionary has at most a tenth of the dead latents of another, and explains as much."""
    ratio = {"other": _of_dictionary("dead_share", baseline, part), "most": 0.1, "fewest_dead": FEWEST_DEAD}
    explained = {
        "side": "above",
        "margin": VARIANCE_MARGIN,
        "quantity": _of_dictionary("explained_variance", dictionary, part),
        "other": _of_dictionary("explained_variance", baseline, part),
    }
    return Claim(
        name=name,
        study=STUDY_NAME,
        statement=statement,
        source=source,
        published=published,
        role="language_model",
        quantity=_of_dictionary("dead_share", dictionary, part),
        comparisons=(
            Comparison("tenth_of_the_dead", "dead_ratio", ratio),
            Comparison("explained_variance", "dictionaries", explained),
        ),
        floor=DICTIONARY_FLOOR,
        figure="dead_features",
    )


FIRST_VERSION = "attention outputs: about 60 % of the directions hold 99 % of the variance"
LATER_VERSION = "effective rank about 60 % of attention outputs, about 90 % of MLP outputs and of the residual stream"
CUT = "dead features from 87 % to below 1 %, of 1M in attention-output dictionaries"

CLAIMS = (
    _below_others(
        "attention_outputs_are_low_dimensional",
        "directions_99",
        "need fewer directions for 99 % of their variance",
        FIRST_VERSION,
    ),
    # a stream of which few coordinates hold nearly all variance has few directions by these alone
    _below_others(
        "attention_outputs_are_low_dimensional_without_rogues",
        "directions_99",
        "need fewer directions for 99 % of their variance",
        FIRST_VERSION,
        suffix="_without_rogues",
        aside=", without the coordinates that are out of proportion",
    ),
    _below_others(
        "attention_outputs_have_a_low_effective_rank", "effective_rank", "have a lower effective rank", LATER_VERSION
    ),
    _below_others(
        "attention_outputs_are_low_dimensional_across_models",
        "directions_99",
        "need fewer directions for 99 % of their variance",
        FIRST_VERSION + ", in all model families tried",
        unit="model",
        where="in most layers of the models",
    ),
    Claim(
        name="output_projection_lowers_the_dimension",
        study=STUDY_NAME,
        statement="The output projection lowers the dimension, and more than a random matrix of its shape: attention "
        "outputs have a lower one than the heads' outputs before it, each head white, and than what a random matrix "
        "makes of these, in most layers.",
        source=PAPER,
        published="induced by the output projection; z is compared as it is, which a change of basis alters at will",
        role="language_model",
        quantity=_rank("projected_directions_99", ATTENTION),
        # of white z, any matrix whose singular values differ makes an output of lower rank
        comparisons=tuple(
            comparison
            for kind in ("directions_99", "effective_rank")
            for comparison in (_lowered(kind), _beyond("random_weight", kind))
        ),
        floor=RANK_FLOOR,
        unit="layer",
        figure="activation_ranks",
    ),
    Claim(
        name="head_overlap_explains_the_low_dimension",
        study=STUDY_NAME,
        statement="Overlap between the heads' output subspaces explains the low dimension: heads that write in "
        "orthogonal subspaces undo most of the drop, and the heads overlap more than ones turned at random, in most "
        "layers.",
        source=f"{PAPER}, a later version",
        published="overlap between the heads' output subspaces",
        role="language_model",
        quantity=_rank("drop_explained", "layers.*.orthogonal_writing"),
        comparisons=(_explained("orthogonal_writing"), _beyond("random_writing")),
        floor=RANK_FLOOR,
        unit="layer",
        figure="activation_ranks",
    ),
    Claim(
        name="reading_explains_the_low_dimension",
        study=STUDY_NAME,
        statement="What the output projection reads explains the low dimension: one of the same singular values that "
        "reads random directions undoes most of the drop, in most layers.",
        source=f"{PAPER}, the first version",
        published="anisotropy of the output projection",
        role="language_model",
        quantity=_rank("drop_explained", "layers.*.random_reading"),
        comparisons=(_explained("random_reading"), _beyond("random_reading")),
        floor=RANK_FLOOR,
        unit="layer",
        figure="activation_ranks",
    ),
    Claim(
        name="dead_latents_rise_with_dictionary_size",
        study=STUDY_NAME,
        statement="Under the standard initialisation a larger dictionary of attention outputs has a larger share of "
        "dead latents.",
        source=PAPER,
        published="up to 87 % of 1M",
        role="language_model",
        quantity=_of_dictionary("dead_share", "standard"),
        comparisons=(
            Comparison(
                "small_dictionary",
                "dictionaries",
                {"side": "above", "other": _of_dictionary("dead_share", "standard_small")},
            ),
        ),
        floor=DICTIONARY_FLOOR,
        figure="dead_features",
    ),
    _cuts(
        "active_subspace_cuts_dead_latents",
        "Latents that start in the active subspace are dead at most a tenth as often as standard ones, neither "
        "centred, and explain as much variance.",
        PAPER,
        CUT,
        "active_subspace",
        "standard",
    ),
    _cuts(
        "active_subspace_cuts_dead_latents_when_centred",
        "Latents that start in the active subspace are dead at most a tenth as often as standard ones, both "
        "centred, and explain as much variance.",
        PAPER,
        CUT + " (centred with the active subspace)",
        "active_subspace_centred",
        "standard_centred",
    ),
    _cuts(
        "centring_alone_cuts_dead_latents",
        "Centring alone keeps latents alive: standard ones that start centred are dead at most a tenth as often, and "
        "explain as much variance.",
        RIVAL,
        "deaths follow from the mean over the spread at the start, and centring alone removes them",
        "standard_centred",
        "standard",
    ),
    _cuts(
        "active_subspace_cuts_dead_latents_of_a_transcoder",
        "In a transcoder too, latents that start in the active subspace are dead at most a tenth as often as standard "
        "ones, and explain as much variance.",
        PAPER,
        "extends to other sparse dictionary learning; no number given in the abstract",
        "transcoder_active_subspace",
        "transcoder_standard",
        part=TRANSCODER,
    ),
)

STUDY = Study(
    STUDY_NAME, "Attention subspaces: ranks, the output projection, dead latents", ROLES, CLAIMS, DICTIONARIES
)
