"""Shapes in signatures are enforced in every test of the package."""

import functools
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

from . import shapes
from .kernels import described, in_use

shapes.install("learning_geometry")
torch.set_num_threads(1)
# no timing gates a test: a slow machine is no failure
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_report_header():
    return f"kernels: {described(in_use())}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give tests that share what takes long to one process: those of whole workflows, and those of files with fixtures.

    Whole workflows come first, as they take longest.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            if path.startswith("tests/workflow/"):
                return "workflow"
            return path if has_fixtures_of_its_own(path) else nodeid

    return Together(config, log)


@functools.cache
def has_fixtures_of_its_own(path):
    """Whether a file of tests makes something once for all of them."""
    file = Path(__file__).parents[1] / path
    return file.is_file() and 'scope="module"' in file.read_text()


@pytest.fixture
def unchecked(monkeypatch):
    """No checks of types and shapes, as users run it: what they would stop is refused by the package itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
