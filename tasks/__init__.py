"""The task package: `celery -A tasks ...`. Which broker carries it, `BROKER_PROFILE` decides."""

from tasks.app import app

__all__ = ["app"]
