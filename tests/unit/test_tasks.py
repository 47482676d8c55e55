"""The task package: what each task returns, in this process and on the memory profile."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import DuplicateTaskNameWarning
from kombu import pools
from rich.console import Console

from broker_profiles import load
from broker_profiles.demo.counting import count_plainly
from tests.embedded_worker import worker_thread
from tests.unit.test_cli import ROOT

SOURCE = """\
# a comment with class and def in it
class A:
    def method(self): pass
\tasync def other(self): pass
def_not = 1
async  with x: pass
\x0cclass AfterAFormFeed: pass
definition = lambda: 0
def é(): pass"""


@pytest.fixture(scope="module")
def package() -> Iterator[SimpleNamespace]:
    """The task package on the memory profile, with a worker in a thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROKER_PROFILE", "memory")
        for name in [name for name in sys.modules if name.split(".")[0] in ("tasks", "config")]:
            patch.delitem(sys.modules, name)
        with warnings.catch_warnings():
            # Celery gives every application the tasks that other tests have made for theirs.
            warnings.simplefilter("ignore", DuplicateTaskNameWarning)
            from tasks import app, arithmetic, flaky, periodic, progress, text

            app.finalize()
            app.loader.import_default_modules()
        with worker_thread(app, pool="threads", concurrency=2, shutdown_timeout=30):
            yield SimpleNamespace(
                app=app, arithmetic=arithmetic, flaky=flaky, periodic=periodic, progress=progress, text=text
            )
        app.close()
        pools.reset()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        (tmp_path / f"m{number}.py").write_text("def f():\n    return 1\n" * (number + 1))
    (tmp_path / "source.py").write_text(SOURCE)
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "empty.py").touch()
    for skipped in ("site-packages", "__pycache__"):
        (tmp_path / skipped).mkdir()
        (tmp_path / skipped / "other.py").write_text("def f(): pass\n")
    return tmp_path


def totals(counts: Any) -> tuple[int, ...]:
    return tuple(counts[name] for name in ("files", "lines", "words", "definitions"))


def test_names_are_stable(package: SimpleNamespace) -> None:
    names = {name for name in package.app.tasks if name.startswith("tasks.")}
    assert names == {
        "tasks.add",
        "tasks.mul",
        "tasks.xsum",
        "tasks.count_file",
        "tasks.count_files",
        "tasks.merge_counts",
        "tasks.count_tree",
        "tasks.heartbeat",
        "tasks.unreliable",
    }


def test_every_task_is_routed_or_scheduled_by_a_name_that_exists(package: SimpleNamespace) -> None:
    for entry in package.app.conf.beat_schedule.values():
        assert entry["task"] in package.app.tasks
    for pattern in package.app.conf.task_routes:
        expression = re.compile(pattern.replace("*", ".*"))
        assert any(map(expression.fullmatch, package.app.tasks)), pattern


def test_arithmetic(package: SimpleNamespace) -> None:
    assert package.arithmetic.add.delay(1, 2).get(timeout=10) == 3
    assert package.arithmetic.mul.delay(2, 2.5).get(timeout=10) == 5
    assert package.arithmetic.xsum.delay([1, 2, 3.5]).get(timeout=10) == 6.5


def test_definitions_are_lines_that_begin_one(package: SimpleNamespace) -> None:
    counts = package.text.count_text("source.py", SOURCE)
    assert (counts["lines"], counts["definitions"]) == (9, 4)


def test_files_below_a_folder_leave_out_what_is_installed(package: SimpleNamespace, folder: Path) -> None:
    found = package.text.python_files(str(folder))
    assert len(found) == 13
    assert found == sorted(found)


def test_the_map_reduce_agrees_with_a_plain_loop(package: SimpleNamespace, folder: Path) -> None:
    paths = package.text.python_files(str(folder))
    for size in (1, 4, 100):
        counts = package.text.map_reduce(paths, size).delay().get(timeout=20)
        assert totals(counts) == count_plainly(paths)
    assert [Path(file["path"]).name for file in counts["largest"]][:2] == ["m9.py", "m8.py"]
    assert len(counts["largest"]) == 10


def test_merging_does_not_depend_on_the_order(package: SimpleNamespace, folder: Path) -> None:
    paths = package.text.python_files(str(folder))
    parts = [package.text.add_up([package.text._count_path(path)]) for path in paths]
    assert package.text.merge(parts) == package.text.merge(parts[::-1])
    assert package.text.merge([package.text.merge(parts[:5]), *parts[5:]]) == package.text.merge(parts)


def test_a_map_reduce_of_nothing_is_an_error(package: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="no files"):
        package.text.map_reduce([])


def test_a_file_that_cannot_be_read_fails_its_task(package: SimpleNamespace, tmp_path: Path) -> None:
    sent = package.text.count_file.delay(str(tmp_path / "none.py"))
    with pytest.raises(FileNotFoundError):
        sent.get(timeout=10)


def test_counting_a_tree_reports_how_far_it_is(
    package: SimpleNamespace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[dict[str, Any]] = []
    monkeypatch.setattr(
        package.text.count_tree, "update_state", lambda **state: reported.append(state), raising=False
    )
    monkeypatch.setattr(package.text, "_REPORT_EVERY", 5)
    counts = package.text.count_tree.run(str(folder))
    assert totals(counts) == count_plainly(package.text.python_files(str(folder)))
    assert [state["meta"]["current"] for state in reported] == [0, 5, 10]
    assert {(state["state"], state["meta"]["total"]) for state in reported} == {("PROGRESS", 13)}


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_unreliable_takes_one_attempt_more_than_it_fails(package: SimpleNamespace, failures: int) -> None:
    assert package.flaky.unreliable.delay(failures).get(timeout=30) == {"attempts": failures + 1}


def test_unreliable_backs_off_with_jitter_and_gives_up(package: SimpleNamespace) -> None:
    task = package.flaky.unreliable
    assert (task.retry_backoff, task.retry_jitter, task.max_retries) == (1, True, package.flaky.MAX_RETRIES)
    sent = task.apply_async((99,), retries=package.flaky.MAX_RETRIES)
    with pytest.raises(package.flaky.TemporaryFailure):
        sent.get(timeout=10)


def test_a_tick_is_recorded_once(package: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(package.periodic.time, "time", lambda: now[0])
    first = package.periodic.heartbeat.run()
    now[0] += 1
    assert package.periodic.heartbeat.run() == first
    assert package.periodic.last_heartbeat() == first
    now[0] += package.periodic.HEARTBEAT_SECONDS
    second = package.periodic.heartbeat.run()
    assert second["tick"] == first["tick"] + 1
    assert package.periodic.last_heartbeat() == second


def test_a_tick_is_as_long_as_the_schedule_says(package: SimpleNamespace) -> None:
    schedule = package.app.conf.beat_schedule["heartbeat"]
    assert schedule["schedule"] == schedule["options"]["expires"] == package.periodic.HEARTBEAT_SECONDS


# -- progress -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("kind", ["chord", "group", "task"])
def test_progress_is_shown_for(package: SimpleNamespace, folder: Path, kind: str, terminal: bool) -> None:
    from celery import group

    paths = package.text.python_files(str(folder))
    console = Console(record=True, force_terminal=terminal, width=100, file=(folder / "out").open("w"))
    work = {
        "chord": lambda: package.text.map_reduce(paths, 1),
        "group": lambda: group(package.text.batches(paths, 1)),
        "task": lambda: package.text.count_tree.s(str(folder)),
    }
    value = package.progress.follow(work[kind]().delay(), "counting", timeout=20, console=console)
    console.file.close()
    assert totals(package.text.merge(value) if kind == "group" else value) == count_plainly(paths)
    if kind != "task":
        assert "13" in console.export_text()


def test_progress_raises_what_a_part_raised(package: SimpleNamespace, folder: Path) -> None:
    sent = package.text.map_reduce([str(folder / "none.py"), str(folder / "m1.py")], 1).delay()
    with pytest.raises(FileNotFoundError):
        package.progress.follow(sent, "counting", timeout=20, console=Console(quiet=True))


# -- the deployment -----------------------------------------------------------------------------------


ENVIRONMENTS = sorted((ROOT / "config" / "env").glob("*.env"))


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_file_names_the_profile_it_is_called_after(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Z_]+=\S+", line) for line in lines)
    variables = dict(line.split("=", 1) for line in lines)
    assert load(environ=variables).name == path.stem
    assert "@" not in path.read_text(), "an address with a password does not belong here"


def test_the_celery_configuration_says_nothing_about_brokers() -> None:
    text = (ROOT / "config" / "celeryconfig.py").read_text()
    assert not re.search(r"^(broker|result_backend)", text, re.MULTILINE)
