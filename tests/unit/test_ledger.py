"""The ledger loses nothing that was written, shows nothing that was not, and minds no kill and no fork."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_profiles.comparison import ledger as module
from broker_profiles.comparison.ledger import (
    KINDS,
    VARIABLE,
    Collector,
    Event,
    Ledger,
    Recorder,
    parse,
    recorder,
)
from tests.waiting import until

SOURCE = Path(module.__file__)

#: A process of its own, with nothing but the module: `argv` is the ledger, then what the script reads.
SCRIPT = f"""
import os, sys, threading, time
sys.path.insert(0, {str(SOURCE.parent)!r})
from ledger import Recorder
recorder = Recorder(sys.argv[1])
"""

EVENTS = st.builds(
    Event,
    st.sampled_from(KINDS),
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(1, 2**22),
    st.text(),
    st.booleans(),
)


def process(script: str, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-c", SCRIPT + script, *argv], stdout=subprocess.PIPE, text=True
    )


def run(script: str, *argv: str) -> str:
    with process(script, *argv) as running:
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    return output


# -- lines ----------------------------------------------------------------------------------------


@given(EVENTS)
def test_an_event_is_one_line_and_comes_back(event: Event) -> None:
    line = event.line()
    assert line.endswith(b"\n")
    assert line.splitlines() == [line[:-1]]
    assert parse(line) == event


@given(EVENTS, st.data())
def test_a_line_that_was_cut_off_is_no_event(event: Event, data: st.DataObject) -> None:
    whole = event.line().rstrip(b"\n")
    assert parse(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@given(st.binary() | st.sampled_from([b"5", b"[]", b"{}", b"null", b'{"kind": "sent"}', b'{"kind": []}']))
def test_other_bytes_are_no_event(data: bytes) -> None:
    assert parse(data) is None


def test_a_kind_that_is_none_is_no_event() -> None:
    assert parse(Event("sent", "a", 1.0, 1).line().replace(b"sent", b"cent")) is None


# -- files ----------------------------------------------------------------------------------------


def test_what_is_written_stays_as_it_is(tmp_path: Path) -> None:
    writing = Recorder(str(tmp_path))
    before = b""
    for number in range(5):
        event = writing.record("start", str(number), "text\nof two lines", again=bool(number % 2))
        (file,) = tmp_path.iterdir()
        now = file.read_bytes()
        assert now == before + event.line()
        before = now
    # A second one of the same process does not touch the first one's file.
    Recorder(str(tmp_path)).record("note", "")
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_not_there_is_an_error_and_not_silence(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        Recorder(str(tmp_path / "absent")).record("note", "")
    with pytest.raises(KeyError, match=VARIABLE):
        recorder({})
    recorder({VARIABLE: str(tmp_path)}).record("note", "")
    assert len(Ledger(tmp_path).events()) == 1


def test_a_disk_that_takes_half_a_line_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Recorder(str(tmp_path))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OSError, match="no room"):
            writing.record("finish", "a")


def test_events_come_in_the_order_of_their_times_whatever_file_they_are_in(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    one, other = Recorder(str(ledger.folder)), Recorder(str(ledger.folder))
    written = [(one, other)[number % 3 == 0].record("start", str(number)) for number in range(30)]
    assert ledger.events() == written
    written += [other.record("finish", "late"), ledger.note("cut", fault=True), one.record("sent", "a")]
    assert ledger.events() == written
    assert [event.id for event in ledger.of("finish", "sent")] == ["late", "a"]
    assert ledger.ids("start") == {str(number) for number in range(30)}
    assert [(event.kind, event.text) for event in ledger.of("fault", "note")] == [("fault", "cut")]


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    events = [Event("start", "é" * number, float(number), 7) for number in range(1, 4)]
    data = b"".join(event.line() for event in events)
    ends = [data.index(b"\n", at) for at in range(len(data)) if data[at - 1 : at] in (b"", b"\n")]
    with (tmp_path / "one.jsonl").open("ab", buffering=0) as file:
        for at in range(len(data)):
            file.write(data[at : at + 1])
            assert ledger.events() == events[: sum(end <= at for end in ends)]


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first, second = Event("start", "a", 1.0, 7).line(), Event("finish", "a", 2.0, 7).line()
    path = tmp_path / "one.jsonl"
    path.write_bytes(first)
    assert len(ledger.events()) == 1
    path.write_bytes(b"x" * len(first) + second)
    assert [event.kind for event in ledger.events()] == ["start", "finish"]


def test_other_files_of_the_folder_do_not_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / "worker.log").write_bytes(Event("start", "a", 1.0, 7).line())
    assert ledger.events() == []


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    writing = Recorder(str(tmp_path))

    def write(name: str) -> None:
        for number in range(200):
            writing.record("start", f"{name}-{number}", name * 50)

    threads = [threading.Thread(target=write, args=[name]) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(Ledger(tmp_path).ids("start")) == len(Ledger(tmp_path).events()) == 1200


# -- processes ------------------------------------------------------------------------------------


def test_a_killed_process_loses_nothing_it_has_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    script = "for n in range(10**9): recorder.record('start', str(n)); print(n, flush=True)"
    with process(script, str(tmp_path)) as running:
        until(lambda: len(ledger.events()) > 500, 20, "500 events")
        running.send_signal(signal.SIGKILL)
        said = running.communicate(timeout=20)[0].splitlines()
    ids = [event.id for event in ledger.events()]
    assert ids == [str(number) for number in range(len(ids))]
    # It may have been killed between the two, and in the middle of the last thing it said.
    assert len(ids) >= len(said) - 1


def test_a_fork_gives_the_child_a_file_of_its_own(tmp_path: Path) -> None:
    script = """
recorder.record("note", "before")
child = os.fork()
recorder.record("start" if child else "finish", "after")
if child:
    os.waitpid(child, 0)
    recorder.record("sent", "last")
"""
    run(script, str(tmp_path))
    ledger = Ledger(tmp_path)
    by_process: dict[int, set[str]] = {}
    for event in ledger.events():
        by_process.setdefault(event.process, set()).add(event.kind)
    assert sorted(map(len, by_process.values())) == [1, 3]
    files = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
    assert files == {str(number) for number in by_process}


def test_a_fork_while_another_thread_writes_does_not_stop_the_child(tmp_path: Path) -> None:
    script = """
import signal
ended = threading.Event()
def write():
    while not ended.is_set():
        recorder.record("note", "")
threads = [threading.Thread(target=write) for _ in range(3)]
[thread.start() for thread in threads]
children = []
for number in range(100):
    child = os.fork()
    if not child:
        signal.alarm(10)
        recorder.record("start", str(number))
        os._exit(0)
    children.append(child)
ended.set()
[thread.join() for thread in threads]
print(sum(os.waitpid(child, 0)[1] for child in children))
"""
    assert run(script, str(tmp_path)) == "0\n"
    assert len(Ledger(tmp_path).ids("start")) == 100


# -- over a socket --------------------------------------------------------------------------------


def test_a_collector_writes_down_what_comes_over_a_socket(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    script = """
for n in range(2000): recorder.record("start", f"{sys.argv[2]}-{n}", "x" * (n % 700))
"""
    with Collector(tmp_path) as collector:
        running = [process(script, collector.url(), name) for name in "abc"]
        assert [one.wait(60) for one in running] == [0, 0, 0]
        for one in running:
            one.communicate()
    # Everything is there as soon as the writers and then the collector have ended.
    events = ledger.events()
    assert len(events) == 6000
    for name in "abc":
        mine = [event.id for event in events if event.id.startswith(name)]
        assert mine == [f"{name}-{number}" for number in range(2000)]


def test_a_collector_ends_though_a_writer_does_not(tmp_path: Path) -> None:
    with Collector(tmp_path) as collector:
        writing = Recorder(collector.url())
        writing.record("start", "a")
        address = ("127.0.0.1", int(collector.url().rpartition(":")[2]))
    assert Ledger(tmp_path).ids("start") == {"a"}
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address, 5)
    with pytest.raises(OSError, match=r"reset|[Bb]roken"):
        for _ in range(100):
            writing.record("start", "b")
            time.sleep(0.01)


def test_a_writer_over_a_socket_may_be_killed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with Collector(tmp_path) as collector:
        address = ("127.0.0.1", int(collector.url().rpartition(":")[2]))
        with socket.create_connection(address, 5) as raw:
            raw.sendall(Event("start", "a", 1.0, 7).line() + Event("finish", "a", 2.0, 7).line()[:30])
        until(lambda: ledger.ids("start") == {"a"}, 20, "it starts")
        Recorder(collector.url()).record("sent", "b")
        until(lambda: ledger.ids("sent") == {"b"}, 20, "it is sent")
    assert ledger.ids("finish") == set()


def test_a_fork_gives_the_child_a_connection_of_its_own(tmp_path: Path) -> None:
    script = """
recorder.record("note", "before")
child = os.fork()
for n in range(300): recorder.record("start" if child else "finish", str(n), "x" * 200)
if child: os.waitpid(child, 0)
"""
    with Collector(tmp_path) as collector:
        run(script, collector.url())
    ledger = Ledger(tmp_path)
    assert len(ledger.ids("start")) == len(ledger.ids("finish")) == 300


def test_a_collector_that_is_not_there_is_an_error_and_not_silence(tmp_path: Path) -> None:
    with Collector(tmp_path) as collector:
        url = collector.url()
    with pytest.raises(OSError, match="refused"):
        Recorder(url).record("start", "a")


@pytest.mark.slow
def test_a_container_writes_over_a_socket(tmp_path: Path) -> None:
    """With no file system in common and nothing but the module: it needs the standard library alone."""
    image = "python:3.13-slim"
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
        pytest.skip(f"there is no image {image}")
    script = """
import os, sys
sys.path.insert(0, "/recorder")
from ledger import recorder
writing = recorder()
for n in range(500): writing.record("start", str(n), text=sys.version.split()[0])
os.fork() or (writing.record("finish", "child"), os._exit(0))
os.wait()
"""
    with Collector(tmp_path, "0.0.0.0") as collector:  # a container reaches no loopback of ours
        before = time.monotonic()
        command = ["docker", "run", "--rm", "--add-host=host.docker.internal:host-gateway"]
        command += [f"--volume={SOURCE}:/recorder/ledger.py:ro"]
        command += [f"--env={VARIABLE}={collector.url('host.docker.internal')}"]
        subprocess.run([*command, image, "python", "-I", "-c", script], check=True, timeout=100)
        after = time.monotonic()
    events = Ledger(tmp_path).events()
    assert [event.id for event in events] == [*map(str, range(500)), "child"]
    assert events[0].text.startswith("3.13.")
    # The clock of the machine: times of a container and of its host can be compared.
    assert before < events[0].time <= events[-1].time < after
