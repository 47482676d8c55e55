"""A queue and what it holds survive a broker that is killed in the first moment of the queue's life."""

from __future__ import annotations

from pathlib import Path

import pytest
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE, MAX_LEVEL, level_name

from broker_profiles.comparison.servers import Server
from tests.acceptance.running import client, runs, worker
from tests.acceptance.tasks import tasks_of
from tests.acceptance.test_profiles import environment
from tests.conftest import ServerOf
from tests.waiting import until

PROFILE = "rabbitmq+none"


@pytest.fixture
def broker(server: ServerOf) -> Server:
    running = server("rabbitmq")
    if not running.owned:
        pytest.skip("the server is not ours to kill")
    return running


@pytest.mark.parametrize("countdown", [None, 1.0], ids=["at once", "delayed"])
def test_the_first_task_of_a_new_queue_survives_a_broker_killed_right_after(
    countdown: float | None, broker: Server, server: ServerOf, tmp_path: Path
) -> None:
    environ, ledger = environment(PROFILE, server, tmp_path), tmp_path / "ledger"
    with client(environ) as app:
        with app.connection_for_write() as connection:
            # Those of an earlier test are old.
            channel = connection.default_channel
            channel.exchange_delete(CELERY_DELAYED_DELIVERY_EXCHANGE)
            for level in range(MAX_LEVEL + 1):
                channel.queue_delete(level_name(level))
        sent = tasks_of(app)["noop"].apply_async(countdown=countdown)
        broker.kill()
    broker.start()
    with client(environ) as app, worker(environ, app, tmp_path / "worker.log", "--concurrency=1"):
        until(lambda: runs(ledger)[sent.id], 30, "the task runs")
    assert set(runs(ledger)) == {sent.id}
