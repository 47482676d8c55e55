"""What a worker knows of a message whose task it runs: how that has failed, should it be set aside."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.request import Request as CeleryRequest

from broker_profiles.transports import failing

logger = logging.getLogger(__name__)


class Request(CeleryRequest):  # type: ignore[misc]
    """Celery's request, which tells the channel of its message how the task has failed."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle a failure; see `celery.worker.request.Request.on_failure`."""
        # Channels of other transports keep no dead letters.
        note = getattr(self.message.channel, "note_failure", None)
        if note is not None and not self.acknowledged:
            try:
                note(self.message, failing.failure(exc_info))
            except Exception:  # the message has to be settled, with or without a note
                logger.exception("The failure of a task cannot be noted for its dead letter")
        return super().on_failure(exc_info, send_failed_event, return_ok)
