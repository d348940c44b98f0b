"""The second run, on other kernels: what is run again, and on which."""

import pytest

from . import kernels
from .kernels import AVX2, AVX512, CHANGES, COMPUTING, NOT_COMPUTING, REPOSITORY, described, in_use, loops, others

HERE = {"NumPy's openblas": "SkylakeX", "ATen": "AVX512", "MKL": "its own choice"}


def test_every_folder_of_tests_is_run_again_or_is_known_to_compute_nothing():
    folders = {
        path.parent.relative_to(REPOSITORY / "tests").parts[0] for path in REPOSITORY.glob("tests/*/**/test_*.py")
    }
    assert folders == {*COMPUTING, *NOT_COMPUTING}


@pytest.mark.parametrize(
    ("flags", "openblas", "chosen"),
    [
        ({AVX2, AVX512}, "SkylakeX", "Haswell"),
        ({AVX2, AVX512}, "SapphireRapids", "Haswell"),
        ({AVX2, AVX512}, "Haswell", "SkylakeX"),
        ({AVX2}, "Zen", "Haswell"),
        ({AVX2}, "Haswell", "Zen"),
        ({AVX2}, None, "Haswell"),
    ],
)
def test_other_kernels_are_chosen_that_the_processor_has(flags, openblas, chosen):
    changed = others(flags, HERE | {"NumPy's openblas": openblas}, ["X86_V3", "X86_V4", "AVX512_ICL"])
    assert changed["OPENBLAS_CORETYPE"] == chosen
    assert changed["ATEN_CPU_CAPABILITY"] == "default"
    assert changed.get("NPY_DISABLE_CPU_FEATURES") == ("X86_V4 AVX512_ICL" if AVX512 in flags else None)
    assert ("MKL_ENABLE_INSTRUCTIONS" in changed) == (AVX512 in flags)
    assert set(changed) <= set(CHANGES)


def test_without_a_second_set_the_run_says_so(monkeypatch, capsys):
    assert others({"sse2"}, HERE, []) is None
    monkeypatch.setattr(kernels, "features", set)
    assert kernels.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"kernels of `make test`: {described(in_use())}",
        "no second set of kernels is known for this processor: the tests that compute are not run again",
    ]


def test_a_kernel_that_does_not_change_is_an_error(monkeypatch, capsys):
    here = in_use()
    monkeypatch.setattr(kernels, "others", lambda *_: {"ATEN_CPU_CAPABILITY": here["ATen"].lower()})
    assert kernels.main([]) == 1
    assert "ATen: not changed by" in capsys.readouterr().err


def test_what_is_loaded_is_named():
    assert {"ATen", "MKL", "NumPy's loops"} <= set(in_use())
    assert in_use()["NumPy's loops"] in {*loops("baseline"), *loops("found")}
