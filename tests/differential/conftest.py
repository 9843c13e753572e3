"""The other implementations as fixtures, and how many examples are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.conftest import BUDGETS
from tests.differential.made import Strategy
from tests.differential.others import Mingo
from tests.differential.others import mingo as child


@pytest.fixture(scope="session")
def mingo() -> Iterator[Mingo]:
    with child() as running:
        yield running


def examples(**strategies: Strategy) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``differential_examples`` of them, made by these strategies.

    They are the same ones each day: a difference that has not been seen may be mingo's, and has to be looked into. The
    long suite, which asks for its own number, makes new ones.
    """
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    made = settings(
        max_examples=BUDGETS["differential_examples"],
        derandomize="JUPYTER_AGENT_BUDGET" not in os.environ,
        deadline=None,
        suppress_health_check=slow,
    )
    return lambda test: made(given(**strategies)(test))
