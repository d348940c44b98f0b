"""What each kind of job took in a default run; ``python -m benchmarks.overhead --kinds`` prints it."""

from typing import NamedTuple


class Seen(NamedTuple):
    """Means of the jobs of a kind, and the most memory of one."""

    seconds: float
    """Of one core, start and work."""
    work: float
    """What it had to do, in the unit of ``planning.work``."""
    memory: int
    """MB, with the libraries that the process had imported."""


SEEN: dict[str, Seen] = {
    "capture_prompts": Seen(14, 1, 1099),
    "capture_text": Seen(19, 1, 1556),
    "dequantise": Seen(6.1, 1, 970),
    "figure": Seen(1.2, 1, 468),
    "judge_claims": Seen(2.5, 1, 485),
    "make_dataset": Seen(0.08, 1, 292),
    "measure activation_patterns_by_layer": Seen(3.2, 2.06e03, 989),
    "measure activation_ranks": Seen(11, 22, 324),
    "measure attention_entropy": Seen(0.28, 2.15e09, 318),
    "measure attention_logits": Seen(0.35, 9e08, 317),
    "measure attention_patterns": Seen(0.19, 1.8e09, 344),
    "measure block_curvature": Seen(9.4, 6.11e10, 447),
    "measure bridge_energy": Seen(0.48, 9.73e11, 341),
    "measure change_of_basis": Seen(0.89, 1.7e03, 349),
    "measure commutators": Seen(2.4, 5.17e10, 423),
    "measure composition": Seen(0.61, 9.91e11, 332),
    "measure contrast_over_training": Seen(2.7, 9.3e10, 594),
    "measure copying_errors": Seen(2.8, 1.87e08, 434),
    "measure depth_growth": Seen(0.96, 401, 431),
    "measure dictionary_sweep": Seen(15, 2.43e08, 718),
    "measure downstream_loss": Seen(14, 36, 1277),
    "measure embedding_frequencies": Seen(0.26, 1.23e09, 300),
    "measure embedding_spectrum": Seen(0.83, 7.38e12, 344),
    "measure head_scores": Seen(0.78, 1.33e11, 371),
    "measure landscape": Seen(9, 5.47e11, 529),
    "measure length_generalisation": Seen(0.49, 1.39e09, 352),
    "measure output_projection": Seen(9, 5, 999),
    "measure prompt_contrasts": Seen(10, 501, 362),
    "measure rank_over_training": Seen(1.9, 5.46e10, 460),
    "measure routing_coordinate": Seen(0.27, 2.55e10, 319),
    "measure shared_directions": Seen(20, 3, 1520),
    "measure sharpness": Seen(3.8, 1.01e11, 498),
    "measure sparse_execution": Seen(4.5, 2.5e15, 522),
    "measure subspace_function": Seen(4.2, 1.89e10, 369),
    "measure subspace_training": Seen(2.4, 3.53e10, 425),
    "measure trajectory_geometry": Seen(0.92, 1.06e10, 394),
    "measure trajectory_orientation": Seen(0.88, 1.27e11, 314),
    "measure untangling": Seen(9.6, 524, 396),
    "summarize": Seen(0.48, 1, 424),
    "train": Seen(13, 1, 506),
}
"""By kind (``planning.order.kind``); of ``train`` the memory counts, as ``planning.work`` knows the seconds."""
