"""What ends a worker and needs no traceback is one line of its log: the error says what to do."""

from __future__ import annotations

import logging

from broker_profiles.errors import BrokerProfilesError, debugging, redact


class OneLine(logging.Filter):
    """Takes the traceback from errors of this package, unless `BROKER_PROFILES_DEBUG` asks for it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten a record; every one passes."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, BrokerProfilesError) and not debugging():
            record.msg, record.args, record.exc_info = "%s", (redact(error),), None
        return True


_ONE_LINE = OneLine()


def install() -> None:
    """Shorten what the worker says when it cannot go on; a second time changes nothing."""
    logging.getLogger("celery.worker").addFilter(_ONE_LINE)
