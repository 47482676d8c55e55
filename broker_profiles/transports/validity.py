"""Whether a task message has the shape and the types that Celery takes for granted: pure checks, in words.

Celery's worker ends, or loses a place in its pool for good, where one of them has another type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: The most characters of an error that are kept with a dead letter: it may quote the whole message.
_LONGEST_DETAIL = 500


def text_of(error: BaseException) -> str:
    """Return what a dead letter says, in one line, of the error that made it one."""
    try:
        text = str(error)
    except Exception:  # whatever the code of a task may raise here
        text = "its text cannot be made"
    return storable(" ".join(f"{type(error).__name__}: {text}".split())[:_LONGEST_DETAIL])


def storable(text: str) -> str:
    """Return a text as every store can hold it: with no half of a surrogate pair."""
    return text.encode(errors="replace").decode()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_time_limit(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(limit is None or isinstance(limit, int | float) for limit in value)
    )


def _is_list_or_none(value: Any) -> bool:
    return value is None or isinstance(value, list)


_HEADERS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "task": (_is_text, "the name of a task"),
    "id": (_is_text, "a text"),
    "root_id": (_is_text_or_none, "a text"),
    "parent_id": (_is_text_or_none, "a text"),
    "group": (_is_text_or_none, "a text"),
    "eta": (_is_text_or_none, "a time"),
    "expires": (_is_text_or_none, "a time"),
    "timelimit": (_is_time_limit, "two numbers"),
    "stamped_headers": (_is_list_or_none, "a list"),
}


def problem_with(headers: Mapping[str, Any]) -> str:
    """Return what is wrong with the headers of a task message, an empty string for nothing.

    A message without a `task` header is no task message of Celery's second protocol: nothing is checked.
    """
    if "task" not in headers:
        return ""
    for name, (is_right, expected) in _HEADERS.items():
        if name in headers or name == "id":
            value = headers.get(name)
            if not is_right(value):
                return f"its header {name} is {value!r:.100} and not {expected}"
    return ""


def problem_with_call(body: Any) -> str:
    """Return what is wrong with the decoded body of a task message, an empty string for nothing.

    Celery unpacks it in the process that runs the task, where a wrong one fails without a trace but a log.
    """
    if isinstance(body, Mapping) and "args" in body:
        return ""  # the first protocol's body under the second's headers
    if not isinstance(body, list | tuple) or len(body) != 3:
        return "its body is not [arguments, arguments by name, options]"
    arguments, by_name, options = body
    if not isinstance(arguments, list | tuple):
        return f"its arguments are {arguments!r:.100} and not a list"
    if not isinstance(by_name, Mapping):
        return f"its arguments by name are {by_name!r:.100} and not an object"
    if not (options is None or isinstance(options, Mapping)):
        return f"its options are {options!r:.100} and not an object"
    return ""
