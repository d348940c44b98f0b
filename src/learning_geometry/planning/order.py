"""In which order jobs begin, and about how long they take: for who waits, never for a result."""

from collections.abc import Iterable
from graphlib import TopologicalSorter

from learning_geometry.planning.jobs import Job

SECONDS: dict[str, float] = {
    "capture_prompts": 27,
    "capture_text": 28,
    "dequantise": 3.0,
    "figure": 1.4,
    "judge_claims": 2.3,
    "make_dataset": 0.09,
    "measure activation_patterns_by_layer": 4.9,
    "measure activation_ranks": 12,
    "measure attention_entropy": 0.39,
    "measure attention_logits": 0.44,
    "measure attention_patterns": 0.28,
    "measure block_curvature": 14,
    "measure bridge_energy": 0.55,
    "measure change_of_basis": 1.3,
    "measure commutators": 3.3,
    "measure composition": 0.71,
    "measure contrast_over_training": 3.7,
    "measure copying_errors": 4,
    "measure depth_growth": 1.1,
    "measure dictionary_sweep": 17,
    "measure downstream_loss": 18,
    "measure embedding_frequencies": 0.4,
    "measure embedding_spectrum": 1.1,
    "measure head_scores": 1.2,
    "measure landscape": 14,
    "measure length_generalisation": 0.68,
    "measure output_projection": 11,
    "measure prompt_contrasts": 13,
    "measure rank_over_training": 2.7,
    "measure routing_coordinate": 0.34,
    "measure shared_directions": 26,
    "measure sharpness": 8.3,
    "measure sparse_execution": 6.1,
    "measure subspace_function": 6,
    "measure subspace_training": 3.8,
    "measure trajectory_geometry": 1.2,
    "measure trajectory_orientation": 1.3,
    "measure untangling": 13,
    "summarize": 0.57,
    "train copying": 0.022,
    "train copying_one_layer": 0.011,
    "train grokking_addition": 0.0083,
    "train marker_sums": 0.01,
    "train marker_sums_any_distractors": 0.0093,
    "train marker_sums_shared_initialisation": 0.01,
    "train not_grokking_cubic_form": 0.0086,
    "train small_alibi": 0.0054,
    "train small_learned_positions": 0.0056,
    "train small_no_positions": 0.0052,
    "train small_pool_10": 0.0068,
    "train small_rotary": 0.0054,
}
"""Core-seconds of each kind of job in a default run, of training of a step; `python -m benchmarks.overhead --kinds`."""

UNKNOWN, UNKNOWN_STEP = 3.0, 0.01
"""Of a kind that is not among them, such as a measurement of one's own; and of a step of a training that is not."""

FIRST = 10**9
"""Added to the priority of what the first figure needs."""


def kind(job: Job) -> str:
    """Return what tells about how long a job takes: ``train copying``, ``measure sharpness``, ``figure``, a rule."""
    if job.rule == "train":
        return f"train {job.wildcards['experiment']}"
    if "measurement" in job.wildcards:
        return f"measure {job.wildcards['measurement']}"
    return "figure" if job.rule.startswith("figure_") else job.rule


def estimated_seconds(job: Job) -> float:
    """Return about how many seconds of one core a job takes."""
    if job.rule == "train":
        return SECONDS.get(kind(job), UNKNOWN_STEP) * float(job.settings["experiment"]["training"]["steps"])
    return SECONDS.get(kind(job), UNKNOWN)


def priorities(jobs: Iterable[Job]) -> dict[Job, int]:
    """Return the priority of each job: the greater, the earlier it begins once it can.

    What the figure with the least work behind it needs comes first, so that there is something to see early. Everything
    else has the seconds until the last job that waits for it ends, if all that can run at once did: so no long chain
    of jobs is left for the end, where a core would stand idle beside it.
    """
    jobs = list(jobs)
    made_by = {path: job for job in jobs for path in job.outputs}
    needed = {
        job: {made_by[path] for paths in job.inputs.values() for path in paths if path in made_by} for job in jobs
    }
    in_order = list(TopologicalSorter(needed).static_order())
    behind: dict[Job, frozenset[Job]] = {}
    for job in in_order:
        behind[job] = frozenset({job}).union(*(behind[each] for each in needed[job]))
    figures = [job for job in jobs if job.rule.startswith("figure_")]
    first = min(figures, key=lambda job: sum(map(estimated_seconds, behind[job])), default=None)
    left = dict.fromkeys(in_order, 0.0)
    for job in reversed(in_order):
        left[job] += estimated_seconds(job)
        for each in needed[job]:
            left[each] = max(left[each], left[job])
    sooner = behind[first] if first else frozenset()
    return {job: round(left[job]) + FIRST * (job in sooner) for job in jobs}
