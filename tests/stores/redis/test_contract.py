"""The Redis store against the contract."""

from __future__ import annotations

import pytest

from tests.stores.contract import StoreContract

pytestmark = pytest.mark.server("redis")


class TestContract(StoreContract):
    """Nothing but the contract."""
