"""A delivered message that tells its channel when it cannot be decoded, on every broker of ours."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import DecodeError

from broker_profiles.transports import validity


class Readable:
    """What a message class of kombu needs so that what cannot be read is set aside when it is acknowledged.

    Its channel has `note_unreadable(delivery_tag, error)`.
    """

    channel: Any
    delivery_tag: Any
    headers: dict[str, Any]

    def decode(self) -> Any:
        """Return the decoded body."""
        try:
            body = super().decode()  # type: ignore[misc]
            problem = validity.problem_with_call(body) if "task" in self.headers else ""
            if problem:
                raise DecodeError(problem)
            return body
        except Exception as error:
            self.channel.note_unreadable(self.delivery_tag, error)
            raise
