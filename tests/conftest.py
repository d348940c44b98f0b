"""Shapes in signatures are enforced in every test of the package."""

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
    """Give the tests of whole workflows to one process, and first: they share a finished run, and take longest."""
    from xdist.scheduler import LoadScopeScheduling

    class WorkflowTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "workflow" if nodeid.startswith("tests/workflow/") else nodeid

    return WorkflowTogether(config, log)


@pytest.fixture
def unchecked(monkeypatch):
    """No checks of types and shapes, as users run it: what they would stop is refused by the package itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
