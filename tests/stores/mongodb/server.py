"""What the tests of the MongoDB store do to its server."""

from __future__ import annotations

from typing import Any

import pymongo
import pytest

from broker_profiles.transports.store import Store


class CutOff:
    """Makes one call of a collection fail, before or after the server has done it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        self._monkeypatch = monkeypatch
        with store._link.use() as collections:  # type: ignore[attr-defined]
            self._collections = collections

    def at(self, collection: str, method: str, *, done: bool = False, calls: int = 1) -> None:
        target = getattr(self._collections, collection)
        original = getattr(target, method)
        left = [calls]

        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0]:
                return original(*arguments, **options)
            self._monkeypatch.setattr(target, method, original)
            if done:
                original(*arguments, **options)
            raise pymongo.errors.AutoReconnect("cut off")

        self._monkeypatch.setattr(target, method, call)
