"""Which short jobs travel together: none waits for itself, a run is not torn apart, a thousand are few bundles."""

from graphlib import TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st

from learning_geometry.planning.bundles import LONGEST, MOST, bundles
from learning_geometry.planning.jobs import Job


def job(name, reads=(), seconds=1.0, **wildcards):
    return Job(f"{name} {seconds}", wildcards, (name,), {"read": tuple(reads)}, {})


def seconds(of):
    return float(of.rule.split()[-1])


@st.composite
def worlds(draw):
    jobs = []
    for number in range(draw(st.integers(1, 14))):
        reads = draw(st.lists(st.sampled_from([each.outputs[0] for each in jobs]), max_size=3)) if jobs else []
        wildcards = {"experiment": draw(st.sampled_from("ab")), "seed": draw(st.sampled_from("01"))}
        chosen = dict(list(wildcards.items())[: draw(st.integers(0, 2))])
        jobs.append(job(str(number), reads, draw(st.sampled_from([1.0, 100.0])), **chosen))
    return jobs


@given(worlds())
def test_no_bundle_waits_for_itself(jobs):
    found = bundles(jobs, seconds)
    of = {each.outputs[0]: found.get(each, f"alone {each.outputs[0]}") for each in jobs}
    needed = {of[each.outputs[0]]: set() for each in jobs}
    for each in jobs:
        needed[of[each.outputs[0]]] |= {of[path] for path in each.inputs["read"]} - {of[each.outputs[0]]}
    list(TopologicalSorter(needed).static_order())  # raises CycleError
    assert all(seconds(each) < 60 for each in found)
    sizes = [list(found.values()).count(number) for number in set(found.values())]
    assert all(size > 1 for size in sizes)


def run(seed, training=1.0, measurements=3):
    of = {"experiment": "many", "seed": str(seed)}
    data, trained = f"{seed} data", f"{seed} trained"
    measured = [job(f"{seed} {number}", [data, trained], **of) for number in range(measurements)]
    return [job(data, **of), job(trained, [data], training, **of), *measured]


def test_a_thousand_short_jobs_are_few_bundles_and_no_run_is_torn_apart():
    jobs = [each for seed in range(200) for each in run(seed)]
    assert len(jobs) == 1000
    found = bundles([*jobs, job("summary", [each.outputs[0] for each in jobs], experiment="many")], seconds)
    assert set(jobs) <= set(found)
    assert len(set(found.values())) <= 20
    for seed in range(200):
        assert len({found[each] for each in jobs if each.wildcards["seed"] == str(seed)}) == 1
    assert max(list(found.values()).count(number) for number in set(found.values())) <= MOST


def test_what_waits_for_long_jobs_is_not_sent_with_what_does_not():
    jobs = [each for seed in range(4) for each in run(seed, training=1000.0)]
    found = bundles(jobs, seconds)
    data, measured = ({found[each] for each in jobs if each.outputs[0].endswith(end)} for end in ("data", "0"))
    assert not data & measured and all(each not in found for each in jobs if seconds(each) > 60)


def test_a_bundle_is_not_longer_than_it_may_be():
    jobs = [job(str(number), seconds=50.0, experiment="a", seed=str(number)) for number in range(1000)]
    found = bundles(jobs, seconds)
    assert max(list(found.values()).count(number) for number in set(found.values())) == LONGEST / 50


def test_jobs_alone_are_in_no_bundle():
    assert bundles([job("one"), job("two", ["one"])], seconds) == {}
    assert bundles([], seconds) == {}
