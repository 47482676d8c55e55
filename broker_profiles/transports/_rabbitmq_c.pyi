from collections.abc import Callable
from datetime import datetime
from typing import Any

class Reader:
    def __new__(cls, library: str, moment: Callable[[int], datetime], /) -> Reader: ...
    def feed(self, data: bytes | memoryview, /) -> list[tuple[Any, ...]]: ...
