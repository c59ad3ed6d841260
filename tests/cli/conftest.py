"""Training takes the compiled engine."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _kernels(kernels):
    """They are there before the first test of this folder, so that no test is charged with compiling them."""
