"""A hub of its own for each test, with the official client and agent at hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub_peers import hub_on_a_new_home
from tests.interop.official import install
from tests.openflow_peers import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    install()
    with hub_on_a_new_home() as running:
        yield running
