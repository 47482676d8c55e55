"""New quorum queues, which would not survive the death of their broker in the first second of their life.

RabbitMQ keeps a file of where on disk the log of each quorum queue is, and writes it a moment late: half a
second to a second after a declaration where nothing else is declared, and never more than 3 s. A broker that
is killed before comes back with a queue that has no leader and serves nobody, whatever it had confirmed. But
it writes all that it has put off as soon as it looks for a name that is not in memory, as it does for the
next quorum queue. So behind a new queue one more is declared, which is deleted at once.

A machine that loses its power is another matter: what is written is on its disk a second later.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from amqp.exceptions import NotFound
from kombu.transport.native_delayed_delivery import MAX_LEVEL, level_name

#: Milliseconds after which a passing queue is gone, should its deletion be lost with the connection.
_EXPIRES = 60_000

#: The most characters of a queue's name that the name of a passing queue begins with.
_LONGEST = 50

#: Celery declares the queues of its delays in this order, and each has the one before it written down.
_FOLLOWED = frozenset(level_name(level) for level in range(MAX_LEVEL, 0, -1))


def has_to_last(queue: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether the declaration of a queue has to be made safe: it is a quorum queue that stays."""
    return (
        arguments.get("x-queue-type") == "quorum" and "x-expires" not in arguments and queue not in _FOLLOWED
    )


@contextlib.contextmanager
def written_down(connection: Any, queue: str) -> Iterator[bool]:
    """Have RabbitMQ write down which queues there are, where the last one declared in a block is new.

    Says whether it is.
    Where that queue is there already, those declared before it have been written down: it came after them.
    """
    # On a channel of its own, for RabbitMQ closes it where there is no such queue.
    with connection.channel() as channel:
        is_new = not _is_there(channel, queue)
        yield is_new
        if is_new:
            # A user may be allowed no other names than those that begin like this one.
            passing = f"{queue[:_LONGEST]}.{uuid.uuid4().hex}"
            arguments = {"x-queue-type": "quorum", "x-expires": _EXPIRES}
            channel.queue_declare(passing, durable=True, auto_delete=False, arguments=arguments)
            channel.queue_delete(passing)


def _is_there(channel: Any, queue: str) -> bool:
    try:
        channel.queue_declare(queue, passive=True)
    except NotFound:
        return False
    return True
