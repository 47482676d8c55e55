"""Processes that die between any two lines of ours."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

import broker_profiles

#: What a child ends with where it died on the way, and where it came to its end.
_DIED, _ENDED = 9, 0

_OURS = str(Path(broker_profiles.__file__).parent)


def _dying_after(lines: int, within: Collection[str]) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function that ends this process at once when so many lines of ours have begun."""
    left = lines

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        if event == "line" and (not within or frame.f_code.co_name in within):
            left -= 1
            if left < 0:
                os._exit(_DIED)
        return trace

    return trace


def dies(prepare: Callable[[], Callable[[], object]], lines: int, within: Collection[str] = ()) -> bool:
    """Do what `prepare` returns in a child that dies after so many lines of it, or of some functions in it.

    Returns whether it died before it was done.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child has no use for
        child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            action = prepare()
            sys.settrace(_dying_after(lines, within))
            action()
            sys.settrace(None)
            status = _ENDED
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (_DIED, _ENDED)
    return status == _DIED
