"""py-amqp with an end to every wait of a publisher: kombu has no setting for the wait for a confirm."""

from __future__ import annotations

from typing import Any

from kombu.transport import pyamqp

#: Seconds, where `broker_transport_options` names none.
_DEFAULT_TIMEOUT = 3.0


class Channel(pyamqp.Channel):  # type: ignore[misc]
    """A channel whose publisher confirms are waited for so long and no longer."""

    def basic_publish_confirm(self, *args: Any, **kwargs: Any) -> Any:
        """Publish, and wait for the confirm.

        Raises `TimeoutError` when none comes, after closing the socket: a confirm that came later would
        be taken for that of the next message.
        """
        if not kwargs.get("confirm_timeout"):
            kwargs["confirm_timeout"] = self.connection.confirm_timeout
        try:
            return super().basic_publish_confirm(*args, **kwargs)
        except TimeoutError:
            seconds = kwargs.get("confirm_timeout") or self.connection.confirm_timeout
            self.connection.collect()
            raise TimeoutError(f"RabbitMQ has not confirmed the message within {seconds:g} s") from None


class Connection(pyamqp.Connection):  # type: ignore[misc]
    """A connection that knows how long a confirm may take."""

    Channel = Channel

    def __init__(self, *args: Any, confirm_timeout: float = _DEFAULT_TIMEOUT, **kwargs: Any) -> None:
        self.confirm_timeout = confirm_timeout
        super().__init__(*args, **kwargs)


class Transport(pyamqp.Transport):  # type: ignore[misc]
    """Celery's messages over AMQP."""

    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):  # type: ignore[misc]
    """Celery's messages over AMQP and TLS."""

    Connection = Connection
