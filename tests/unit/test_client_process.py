"""A client is a process that answers, is ended where it hangs, and is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker_profiles.comparison.client import Client, ClientError, ClientHung
from broker_profiles.comparison.column import file_variables
from broker_profiles.comparison.ledger import VARIABLE, Ledger
from broker_profiles.comparison.scenario import TooLate
from broker_profiles.comparison.variables import PREFIX_VARIABLE
from tests.waiting import until

ROOT = Path(__file__).parents[2]

# -- what the process is asked to do --------------------------------------------------------------


def echo(app: Any, *args: Any) -> list[Any]:
    return [app.main, os.getpid(), *args]


def hang(app: Any) -> None:
    time.sleep(600)


def hang_with_a_child(app: Any) -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])


def die(app: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(app: Any) -> None:
    sys.stderr.write("these are its last words\n")
    raise SystemExit(3)


def fail(app: Any) -> None:
    raise LookupError("at redis://user:secret@host:1/\nof two lines")


def chatter(app: Any) -> str:
    """Print in every way there is, before and with the answer."""
    print('{"value": "printed"}')
    sys.stdout.flush()
    os.write(1, b"garbage\n\xff\n")
    subprocess.run(["/bin/echo", "from a child"], check=True)
    return "said"


def garble(app: Any) -> None:
    """Write to where the answers go."""
    answers = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2]  # noqa: PTH208
    for fd in answers:
        with contextlib.suppress(OSError):
            os.write(fd, b"garbage\n")


def big(app: Any, size: int) -> str:
    return "x" * size


def odd(app: Any) -> Any:
    return {"path": Path("/tmp"), "text": "a\nb\r\u2028é", "error": "not one"}


def unsayable(app: Any) -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return circle


# -- the client -----------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def client(tmp_path: Path, ledger: Ledger) -> Iterator[Client]:
    environ = {
        **file_variables(tmp_path),
        VARIABLE: str(ledger.folder),
        PREFIX_VARIABLE: "bp-test",
        "PYTHONPATH": str(ROOT),
    }
    made = Client(environ, tmp_path / "client.log")
    yield made
    made.kill()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def refused(function: Callable[..., Any], client: Client, **options: Any) -> ClientError:
    with pytest.raises(ClientError) as raised:
        client.call(function, **options)
    return raised.value


def test_it_starts_at_the_first_call_and_stays(client: Client) -> None:
    assert not client.running
    answer = client.call(echo, 1, "two", [3], {"four": None})
    assert answer == ["comparison", client.pid, 1, "two", [3], {"four": None}]
    assert client.running
    assert client.call(echo)[1] == client.pid
    client.kill()
    assert not client.running
    assert is_gone(answer[1])
    client.kill()


def test_one_that_hangs_is_ended_and_replaced(client: Client) -> None:
    first = client.pid
    client.call(echo)
    began = time.monotonic()
    with pytest.raises(ClientHung, match=r"did not return within 0\.5 s"):
        client.call(hang, within=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert issubclass(ClientHung, TooLate)
    assert is_gone(first)
    # The late answer of the first is not taken for that of the second.
    assert client.call(echo, "again")[2:] == ["again"]
    assert client.pid != first


def test_one_that_hangs_is_ended_with_what_it_started(client: Client) -> None:
    client.call(echo)
    process = psutil.Process(client.pid)
    with pytest.raises(ClientHung):
        client.call(hang_with_a_child, within=3)
    assert not process.is_running() or not process.children()
    assert not [other for other in psutil.process_iter(["cmdline"]) if other.info["cmdline"] == CHILD]


CHILD = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_one_that_is_frozen_is_ended(client: Client) -> None:
    pid = client.call(echo)[1]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ClientHung):
        client.call(echo, within=0.5)
    assert is_gone(pid)


@pytest.mark.parametrize(("function", "words"), [(die, ""), (leave, "these are its last words")])
def test_one_that_dies_is_an_error_with_its_last_words(
    function: Callable[..., Any], words: str, client: Client
) -> None:
    began = time.monotonic()
    error = refused(function, client, within=60)
    assert error.kind == "Ended"
    assert words in str(error)
    assert time.monotonic() - began < 20
    assert client.call(echo)[0] == "comparison"


def test_one_that_was_killed_between_two_calls_is_replaced(client: Client) -> None:
    pid = client.call(echo)[1]
    os.killpg(pid, signal.SIGKILL)
    until(lambda: not client.running, 10, "its death is seen")
    assert client.call(echo)[1] != pid


def test_one_that_is_killed_while_it_works_is_an_error_at_once(client: Client) -> None:
    pid = client.call(echo)[1]
    killer = threading.Timer(0.3, os.killpg, [pid, signal.SIGKILL])
    killer.start()
    began = time.monotonic()
    assert refused(hang, client, within=60).kind == "Ended"
    assert time.monotonic() - began < 10
    killer.join()


def test_one_that_cannot_start_says_why(client: Client) -> None:
    client.environ["BROKER_PROFILE"] = "rabitmq"
    error = refused(echo, client)
    assert error.kind == "Ended"
    assert "rabbitmq" in str(error)


def test_what_it_raises_is_an_error_of_one_line_without_secrets(client: Client) -> None:
    error = refused(fail, client)
    assert error.kind == "LookupError"
    assert str(error) == "LookupError: at redis://user:***@host:1/ of two lines"
    assert client.running


def test_what_it_prints_is_no_answer(client: Client, tmp_path: Path) -> None:
    for _ in range(3):
        assert client.call(chatter) == "said"
    log = (tmp_path / "client.log").read_bytes()
    assert log.count(b"garbage\n\xff\n") == log.count(b"from a child\n") == log.count(b"printed") == 3


def test_garbage_for_an_answer_is_an_error_and_ends_it(client: Client) -> None:
    pid = client.call(echo)[1]
    error = refused(garble, client)
    assert error.kind == "Garbled"
    assert "garbage" in str(error)
    assert is_gone(pid)
    assert client.call(echo)[1] != pid


def test_answers_of_any_size_and_kind(client: Client) -> None:
    assert len(client.call(big, 3_000_000)) == 3_000_000
    assert client.call(odd) == {"path": "/tmp", "text": "a\nb\r\u2028é", "error": "not one"}
    assert client.call(echo, "x" * 500_000)[2] == "x" * 500_000
    assert refused(unsayable, client).kind in ("ValueError", "Ended")
    assert client.call(echo)[0] == "comparison"


def test_it_ends_when_the_suite_does(client: Client, tmp_path: Path) -> None:
    script = f"""
import json, pathlib, sys
from broker_profiles.comparison.client import Client
client = Client(json.loads(sys.argv[1]), pathlib.Path({str(tmp_path / "other.log")!r}))
print(client.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(client.environ)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as suite:
        assert suite.stdout is not None
        pid = int(suite.stdout.readline())
        suite.kill()
        suite.communicate()
    until(lambda: is_gone(pid), 20, "it ends with the suite")


# -- sending --------------------------------------------------------------------------------------


def test_what_it_sends_is_in_the_ledger(client: Client, ledger: Ledger) -> None:
    answers = client.send("note", 5)
    assert [answer.error for answer in answers] == [None] * 5
    assert all(0 < answer.seconds < 10 for answer in answers)
    ids = {answer.id for answer in answers}
    assert len(ids) == 5
    assert ledger.ids("sending") == ledger.ids("sent") == ids
    assert ledger.ids("refused", "start") == set()
    assert {event.process for event in ledger.events()} == {client.pid}


def test_what_is_refused_is_in_the_ledger_and_an_error_where_none_was_expected(
    client: Client, ledger: Ledger
) -> None:
    # No serializer knows this name.
    answers = client.send("note", 2, serializer="smoke")
    assert all(answer.error and "smoke" in answer.error for answer in answers)
    assert ledger.ids("refused") == {answer.id for answer in answers}
    assert ledger.ids("sent") == set()
    with pytest.raises(ClientError, match="smoke"):
        client.sent("note", serializer="smoke")
    with pytest.raises(ClientError, match=r"comparison\.absent"):
        client.sent("absent")


def test_tasks_are_sent_so_many_seconds_apart(client: Client, ledger: Ledger) -> None:
    client.send("note", 5, every=0.1)
    times = [event.time for event in ledger.of("sending")]
    assert times[-1] - times[0] == pytest.approx(0.4, abs=0.15)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_sending_goes_on_for_the_length_of_a_block(seconds: float, client: Client, ledger: Ledger) -> None:
    """Also of one that is over before the process has started."""
    if seconds:
        client.call(echo)
    with client.sending("note", every=0.02) as answers:
        time.sleep(seconds)
        assert answers == []
    assert {answer.id for answer in answers} == ledger.ids("sent")
    assert (len(answers) > 10) is bool(seconds)
    after = len(ledger.events())
    assert client.call(echo)[0] == "comparison"
    assert len(ledger.events()) == after


def test_a_client_killed_in_the_block_gives_no_answers(client: Client, ledger: Ledger) -> None:
    pid = client.call(echo)[1]
    with client.sending("note", every=0.01) as answers:
        deadline = time.monotonic() + 20
        while len(ledger.ids("sent")) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(pid, signal.SIGKILL)
        while client.running:
            time.sleep(0.01)
    assert answers == []
    assert len(client.sent("note", 2)) == 2


def test_a_block_that_fails_leaves_a_client_that_answers(client: Client) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), client.sending("note"):
        raise RuntimeError("on purpose")
    assert client.call(echo, "answer")[2:] == ["answer"]


def test_nothing_is_left_open(client: Client) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(2):
        client.call(echo)
        client.kill()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
