"""What looks like a secret in the arguments of a dead letter is not shown, whatever surrounds it."""

from __future__ import annotations

import pytest

from broker_profiles.runtime.dead_letter import contents
from broker_profiles.transports import envelope, store


def kwargs_shown(kwargs: str) -> str:
    body = envelope.pack(
        {
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "t", "id": "1", "argsrepr": "()", "kwargsrepr": kwargs},
            "properties": {},
            "body": b"[[], {}, {}]",
        }
    )
    return contents(store.DeadLetter(1, "q", body, 0, store.REJECTED, "", 1, 0.0, len(body))).kwargs


@pytest.mark.parametrize(
    "kwargs",
    [
        "{'auth': {'password': {'a': {'b': 'hunter2'}, 'c': 'hunter2'}}}",
        "{'tokens': [['a'], 'hunter2']}",
        "{'passwords': ['a]b', 'hunter2']}",
        "{'card_secret': ('a', ('b',), 'hunter2')}",
        "{'password': Secret('x and hunter2')}",
        "{'password': a word, then hunter2}",
        "{'password': b'hunter2', 'n': 1}",
        "{'password': 'it\\'s hunter2",
        *(
            f"{{'{name}': 'hunter2'}}"
            for name in ("apikey", "private_key", "pw", "pwd", "authorization", "X-Api-Key", "Cookie")
        ),
    ],
)
def test_what_is_behind_the_name_of_a_secret_is_hidden(kwargs: str) -> None:
    shown = kwargs_shown(kwargs)
    assert "hunter2" not in shown
    assert "***" in shown


def test_what_comes_behind_a_plain_secret_is_shown() -> None:
    assert kwargs_shown("{'a': 1, 'token': 'x, \\'y', 'pwd': None, \"pw\": 5, 'to': ['b']}") == (
        "{'a': 1, 'token': '***', 'pwd': '***', \"pw\": '***', 'to': ['b']}"
    )


def test_no_more_is_looked_at_than_people_read() -> None:
    assert len(kwargs_shown("{'" + "pass" * 100_000)) == 4096
