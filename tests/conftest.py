"""What holds for every test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. What must be quick has a test that says so.
settings.register_profile("moonpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("moonpool")


def _settle() -> None:
    """What is here stays: whoever looks through ten thousand tests for garbage stops the loop of one for a second."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    _settle()


@pytest.fixture(scope="module", autouse=True)
def _after_a_module() -> Iterator[None]:
    yield
    _settle()
