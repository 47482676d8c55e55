"""The tables of the SQLite store, its statements, and the steps that its transactions are made of.

A message is a row whose state says which partial index it is in: ready by (queue, priority, order sent),
delayed by due time, leased by consumer. So the cost of each step depends on the messages it touches and
not on how many wait.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from broker_profiles.transports.store import SHOWN, Outgoing, Receipt, Step

READY, DELAYED, LEASED = 0, 1, 2

# AUTOINCREMENT: an id is never used twice, so that an old receipt cannot fit a new message.
# Times are milliseconds since the epoch.
SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    expires INTEGER, message_ttl INTEGER, used_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, priority INTEGER NOT NULL,
    state INTEGER NOT NULL, due INTEGER, expires INTEGER, consumer TEXT,
    token INTEGER NOT NULL DEFAULT 0, deliveries INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS ready ON messages (queue, priority DESC, id) WHERE state = 0;
CREATE INDEX IF NOT EXISTS delayed ON messages (due) WHERE state = 1;
CREATE INDEX IF NOT EXISTS leased ON messages (consumer) WHERE state = 2;
CREATE INDEX IF NOT EXISTS expiring ON messages (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS consumers (id TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bindings (
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, queue TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, queue)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    name TEXT PRIMARY KEY, value TEXT NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, priority INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, deliveries INTEGER NOT NULL,
    died_at INTEGER NOT NULL, body BLOB NOT NULL)
"""

INSERT = f"""
INSERT INTO messages (queue, priority, state, due, expires, body)
SELECT id, ?1, CASE WHEN ?2 > ?3 THEN {DELAYED} ELSE {READY} END, ?2,
       CASE WHEN message_ttl IS NULL THEN ?4 ELSE min(coalesce(?4, ?2 + message_ttl), ?2 + message_ttl) END,
       ?5
FROM queues WHERE name = ?6
"""

RESERVE = f"""
UPDATE messages
SET state = {LEASED}, consumer = ?, token = token + 1, deliveries = deliveries + 1
WHERE id IN (SELECT id FROM messages WHERE queue = ? AND state = {READY}
             ORDER BY priority DESC, id LIMIT ?)
RETURNING id, token, deliveries, priority, expires, body
"""

HELD = f"WHERE id = ? AND token = ? AND state = {LEASED}"

# Of a message that is still held alone: a dead letter beside a living message would be one too many.
BURY = f"""
INSERT INTO dead (queue, priority, reason, detail, deliveries, died_at, body)
SELECT queues.name, priority, ?, ?, deliveries, ?, body
FROM messages JOIN queues ON queues.id = messages.queue
WHERE messages.id = ? AND token = ? AND state = {LEASED}
"""

DEAD_LETTERS = (
    f"SELECT id, queue, coalesce(substr(body, 1, {SHOWN}), x''), priority, reason, detail, deliveries, "
    "died_at / 1000.0, length(body) FROM dead"
)

# Ids grow with time: the oldest are looked at and no others.
DEAD_BEFORE = "SELECT id FROM (SELECT id, died_at FROM dead ORDER BY id LIMIT ?) WHERE died_at < ?"
DEAD_BEYOND = (
    "SELECT id FROM dead WHERE queue = ? AND id <= "
    "(SELECT id FROM dead WHERE queue = ? ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?"
)


def now_ms() -> int:
    """Return the time, in milliseconds since the epoch."""
    return int(time.time() * 1000)


def row_of(message: Outgoing, now: int) -> tuple[Any, ...]:
    """Return the values of `INSERT` for a message."""
    # Never early: `now` is rounded down, and so one more is needed.
    due = now + (math.ceil(message.delay * 1000) + 1 if message.delay > 0 else 0)
    expires = None if message.expires is None else now + round(message.expires * 1000)
    return message.priority, due, now, expires, message.body, message.queue


def key_of(receipt: Receipt) -> tuple[int | str, int | str]:
    """Return the values of `HELD` for a receipt."""
    return receipt.message, receipt.token


def milliseconds(seconds: float | None) -> int | None:
    """Return seconds as the tables keep them."""
    return None if seconds is None else int(seconds * 1000)


def acknowledge(connection: sqlite3.Connection, receipts: Sequence[Receipt]) -> None:
    """Delete the messages that are still held by these receipts."""
    if receipts:
        connection.executemany(f"DELETE FROM messages {HELD}", map(key_of, receipts))


def promote(connection: sqlite3.Connection, now: int) -> None:
    """Make what is due ready."""
    connection.execute(f"UPDATE messages SET state = {READY} WHERE state = {DELAYED} AND due <= ?", (now,))


def bury(
    connection: sqlite3.Connection,
    id_: int | str,
    token: int | str,
    reason: str,
    detail: str,
    now: int,
) -> None:
    """Make a dead letter of a message that is still held."""
    connection.execute(BURY, (reason, detail, now, id_, token))
    connection.execute(f"DELETE FROM messages {HELD}", (id_, token))


def end_consumer(connection: sqlite3.Connection, consumer: str) -> None:
    """Give back what a consumer holds, and forget it."""
    connection.execute(
        f"UPDATE messages SET state = {READY}, consumer = NULL WHERE consumer = ? AND state = {LEASED}",
        (consumer,),
    )
    connection.execute("DELETE FROM consumers WHERE id = ?", (consumer,))


def drop_queue(connection: sqlite3.Connection, queue: str) -> None:
    """Delete a queue with its messages and bindings."""
    connection.execute("DELETE FROM messages WHERE queue = (SELECT id FROM queues WHERE name = ?)", (queue,))
    connection.execute("DELETE FROM bindings WHERE queue = ?", (queue,))
    connection.execute("DELETE FROM queues WHERE name = ?", (queue,))


def advance(connection: sqlite3.Connection, step: Step, messages: Sequence[Outgoing], now: int) -> bool:
    """Change a mark and insert messages, if the mark says what was seen of it."""
    row = connection.execute("SELECT value FROM marks WHERE name = ?", (step.name,)).fetchone()
    value = row[0] if row else None
    if value == step.value:
        return True
    if value != step.seen:
        return False
    connection.execute("REPLACE INTO marks VALUES (?, ?, ?)", (step.name, step.value, now))
    for message in messages:
        connection.execute("INSERT OR IGNORE INTO queues (name, used_at) VALUES (?, ?)", (message.queue, now))
        connection.execute(INSERT, row_of(message, now))
    return True


def end_what_ran_out(connection: sqlite3.Connection, consumer: str, now: int) -> None:
    """End the leases of other consumers and the queues nobody used; drop what has expired."""
    ended = connection.execute(
        "SELECT id FROM consumers WHERE until <= ? AND id != ?", (now, consumer)
    ).fetchall()
    for (id_,) in ended:
        end_consumer(connection, id_)
    unused = connection.execute(
        "SELECT name FROM queues WHERE expires IS NOT NULL AND used_at + expires <= ?", (now,)
    ).fetchall()
    for (name,) in unused:
        drop_queue(connection, name)
    connection.execute(f"DELETE FROM messages WHERE expires <= ? AND state != {LEASED}", (now,))
