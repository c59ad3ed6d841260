"""A test that takes `engine` runs on each of them."""

import pytest

from oracles.bridge import ENGINES


@pytest.fixture(scope="session", autouse=True)
def _kernels(kernels):
    """They are there before the first test of this folder, so that no test is charged with compiling them."""


@pytest.fixture(scope="session", params=ENGINES)
def engine(request):
    return request.param
