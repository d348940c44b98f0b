"""Shapes in signatures are enforced in every test of the package."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("learning_geometry", "beartype.beartype")
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the tests of whole workflows to one process, and first: they share a finished run, and take longest."""
    from xdist.scheduler import LoadScopeScheduling

    class WorkflowTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "workflow" if nodeid.startswith("tests/workflow/") else nodeid

    return WorkflowTogether(config, log)
