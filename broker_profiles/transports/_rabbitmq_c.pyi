from collections.abc import Callable
from datetime import datetime
from typing import Any

class Reader:
    def __new__(cls, library: str, moment: Callable[[int], datetime], /) -> Reader: ...
    def feed(self, data: bytes | memoryview, /) -> list[tuple[Any, ...]]: ...

class Writer:
    def __new__(cls, library: str, /) -> Writer: ...
    def publish(
        self,
        channel: int,
        method: int,
        arguments: bytes,
        properties: dict[str, Any],
        body: bytes | memoryview,
        largest: int,
        /,
    ) -> bytes | None: ...
