"""Misspelt settings of Celery: found wherever an application sets them, and nothing else is taken for one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS

from broker_profiles import configure
from broker_profiles.errors import MisspeltSetting
from broker_profiles.spelling import misspelt
from tests.unit.test_cli import assert_one_line, run_apart

#: What Celery takes though its list of settings lacks it, and what other packages take.
OTHERS = """
    redbeat_redis_url redbeat_lock_timeout beat_dburi beat_schema beat_engine_options
    django_celery_results_task_id_max_length mongodb_scheduler_url cassandra_secure_bundle_path
    result_backend_thread_safe singleton_backend_url once task_tracking_enabled worker_hijack_root_logger
""".split()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("task_ack_late", "task_acks_late"),
        ("worker_prefetch_multiplyer", "worker_prefetch_multiplier"),
        ("broker_conection_timeout", "broker_connection_timeout"),
        ("result_expire", "result_expires"),
    ],
)
def test_the_nearest_name_is_found(name: str, meant: str) -> None:
    assert misspelt(name) == meant


def test_what_somebody_takes_is_no_mistake() -> None:
    assert {name: meant for name in (*OTHERS, *SETTING_KEYS) if (meant := misspelt(name))} == {}


def test_a_misspelt_setting_of_the_application_is_refused() -> None:
    app = configure(Celery("t"), "memory")
    app.conf.update(task_ack_late=False)
    with pytest.raises(MisspeltSetting, match=r"'task_ack_late'. Did you mean 'task_acks_late'\?"):
        _ = app.conf.task_acks_late


def test_names_with_a_prefix_are_shown_as_they_are_written() -> None:
    app = Celery("t")
    settings = SimpleNamespace(
        CELERY_TASK_ACK_LATE=True, TASK_ACK_LATE=True, CELERY_BEAT_DBURI="", DEBUG=True
    )
    app.config_from_object(settings, namespace="CELERY")
    configure(app, "memory")
    with pytest.raises(
        MisspeltSetting, match=r"'CELERY_TASK_ACK_LATE'. Did you mean 'CELERY_TASK_ACKS_LATE'\?"
    ):
        _ = app.conf.task_acks_late


def test_what_a_module_needs_for_itself_is_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shopconfig.py").write_text(
        "import os as task_router\n"
        "def task_queue(name): return {'queue': name}\n"
        "TASK_ACK_LATE = _task_ack_late = True\n"
        "task_acks_late = False\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    app = Celery("t")
    app.config_from_object("shopconfig")
    assert configure(app, "memory").conf.task_acks_late is False
    del sys.modules["shopconfig"]


def test_a_baseline_is_celery_as_it_comes() -> None:
    app = configure(Celery("t"), "stock-redis")
    app.conf.update(task_ack_late=True)
    assert app.conf.task_acks_late is False


def test_a_worker_does_not_start_with_one(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from broker_profiles import celery_app\napp = celery_app('shop')\napp.conf.task_ack_late = True\n"
    )
    ended = run_apart("celery", "-A", "shop", "worker", cwd=tmp_path)
    assert_one_line(ended, 2, "'task_ack_late'", "'task_acks_late'")
