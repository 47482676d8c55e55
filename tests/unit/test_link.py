"""The link does to real connections what a network does, and nothing else."""

from __future__ import annotations

import hashlib
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker_profiles.comparison.link import Link

#: How long nothing may happen before a test says that nothing happens, in seconds.
QUIET = 0.3


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it gets; counts the connections it has and how they ended."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        self.here = 0
        self.ended: list[str] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), EchoHandler)
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Echo)
        with server.lock:
            server.here += 1
        ending = "end"
        try:
            while data := self.request.recv(65_536):
                self.request.sendall(data)
        except OSError:
            ending = "reset"
        with server.lock:
            server.here -= 1
            server.ended.append(ending)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def link(echo: Echo) -> Iterator[Link]:
    made = Link("127.0.0.1", echo.port)
    yield made
    made.close()


@pytest.fixture
def dial(link: Link) -> Iterator[Callable[[], socket.socket]]:
    """Return a function that connects to the link; what it returned is closed in the end."""
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", link.port), 5))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


Dial = Callable[[], socket.socket]


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(min(65_536, size - len(data)))
        assert more, f"ended after {len(data)} bytes"
        data += more
    return data


def says(connection: socket.socket, data: bytes = b"hello") -> float:
    """Return the seconds until it came back."""
    began = time.monotonic()
    connection.sendall(data)
    assert exactly(connection, len(data)) == data
    return time.monotonic() - began


def silent(connection: socket.socket) -> bool:
    """Whether nothing comes, and no end either."""
    connection.settimeout(QUIET)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        connection.settimeout(5)
    return False


def is_reset(connection: socket.socket) -> bool:
    try:
        connection.recv(1)
    except ConnectionResetError:
        return True
    return False


def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- carrying -------------------------------------------------------------------------------------


def test_ten_megabytes_come_as_they_went(dial: Dial) -> None:
    connection = dial()
    data = os.urandom(10 << 20)
    sending = threading.Thread(target=connection.sendall, args=[data])
    sending.start()
    assert hashlib.sha256(exactly(connection, len(data))).digest() == hashlib.sha256(data).digest()
    sending.join()


class Giving(socketserver.StreamRequestHandler):
    """Gives as many bytes as it is asked for, and ends."""

    def handle(self) -> None:
        self.wfile.write(bytes(int(self.rfile.read())))


def test_a_slow_reader_gets_everything_though_both_have_sent_their_end() -> None:
    """Of several sizes, for with some all is on its way and with some a rest waits in the link."""

    def taken(size: int) -> int:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", link.port))
            connection.sendall(b"%d" % size)
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            got = 0
            while more := connection.recv(65_536):
                got += len(more)
            return got

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Giving) as server:
        threading.Thread(target=server.serve_forever, args=[0.05]).start()
        link = Link(*server.server_address)
        try:
            sizes = range(100_000, 4_500_000, 50_000)
            with ThreadPoolExecutor(8) as several:
                assert list(several.map(taken, sizes)) == list(sizes)
        finally:
            link.close()
            server.shutdown()


def test_an_end_is_carried_on(dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    eventually(lambda: echo.ended == ["end"])


def test_many_connections_at_once(dial: Dial, echo: Echo) -> None:
    connections = [dial() for _ in range(150)]
    for number, connection in enumerate(connections):
        connection.sendall(b"%04d" % number * 50)
    for number, connection in enumerate(connections):
        assert exactly(connection, 200) == b"%04d" % number * 50
    assert echo.here == 150


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    link = Link("127.0.0.1", port)
    try:
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", link.port), 5) as connection,
        ):
            connection.recv(1)
    finally:
        link.close()


# -- cut ------------------------------------------------------------------------------------------


def test_cut_resets_what_there_is_and_refuses_what_comes(link: Link, dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    link.cut()
    assert is_reset(connection)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            dial()
    eventually(lambda: echo.ended == ["reset"])
    link.heal()
    says(dial())


def test_a_client_that_tries_again_and_again_never_meets_itself(link: Link) -> None:
    """On a port that the system gives to clients, one may be given the very port it connects to."""
    link.cut()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", link.port))
    local_ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if local_ports.exists():
        lowest, highest = map(int, local_ports.read_text().split())
        assert not lowest <= link.port <= highest


def test_heal_and_cut_may_be_repeated(link: Link, dial: Dial) -> None:
    port = link.port
    link.heal()
    for _ in range(5):
        link.cut()
        link.cut()
        link.heal()
        link.heal()
        says(dial())
    assert link.port == port


# -- stall ----------------------------------------------------------------------------------------


def test_stall_holds_everything_and_heal_carries_it_on(link: Link, dial: Dial, echo: Echo) -> None:
    before = dial()
    says(before)
    link.stall()
    before.sendall(b"before")
    during = dial()
    during.sendall(b"during")
    assert silent(before)
    assert silent(during)
    assert echo.here == 1
    link.heal()
    assert exactly(before, 6) == b"before"
    assert exactly(during, 6) == b"during"


@pytest.mark.parametrize("how", ["end", "reset"])
def test_nobody_is_told_of_a_client_that_went_behind_a_partition(
    how: str, link: Link, dial: Dial, echo: Echo
) -> None:
    connection = dial()
    says(connection)
    link.stall()
    leave(connection, how)
    time.sleep(QUIET)
    assert echo.here == 1
    link.heal()
    eventually(lambda: echo.here == 0)


def leave(connection: socket.socket, how: str) -> None:
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def test_a_partition_may_become_an_outage(link: Link, dial: Dial, echo: Echo) -> None:
    before = dial()
    says(before)
    link.stall()
    during = dial()
    during.sendall(b"during")
    link.cut()
    assert is_reset(before)
    assert is_reset(during)
    with pytest.raises(ConnectionRefusedError):
        dial()
    link.heal()
    says(dial())
    eventually(lambda: echo.here == 1)


def test_an_outage_may_become_a_partition(link: Link, dial: Dial) -> None:
    link.cut()
    link.stall()
    connection = dial()
    connection.sendall(b"hello")
    assert silent(connection)
    link.heal()
    assert exactly(connection, 5) == b"hello"


# -- half open and reset --------------------------------------------------------------------------


def test_half_open_stays_dead_while_new_ones_work(link: Link, dial: Dial, echo: Echo) -> None:
    old = dial()
    says(old)
    link.half_open()
    old.sendall(b"lost")
    new = dial()
    says(new)
    assert silent(old)
    link.heal()
    assert silent(old)
    says(new)
    says(dial())
    assert echo.here == 3


@pytest.mark.parametrize("how", ["end", "reset"])
def test_nobody_is_told_of_a_client_that_went_half_open(how: str, link: Link, dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    link.half_open()
    leave(connection, how)
    time.sleep(QUIET)
    link.heal()
    time.sleep(QUIET)
    assert echo.here == 1


def test_half_open_is_of_those_too_that_a_partition_holds(link: Link, dial: Dial) -> None:
    link.stall()
    connection = dial()
    connection.sendall(b"hello")
    assert silent(connection)
    link.half_open()
    link.heal()
    assert silent(connection)


def test_cut_ends_what_is_half_open(link: Link, dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    link.half_open()
    link.cut()
    assert is_reset(connection)
    eventually(lambda: echo.ended == ["reset"])


def test_reset_is_of_those_there_are(link: Link, dial: Dial, echo: Echo) -> None:
    old = dial()
    says(old)
    link.reset()
    assert is_reset(old)
    says(dial())
    eventually(lambda: echo.ended == ["reset"])


# -- slow -----------------------------------------------------------------------------------------


def test_a_delay_is_that_of_each_way(link: Link, dial: Dial) -> None:
    connection = dial()
    says(connection)
    link.slow_down(delay=0.1)
    assert 0.2 <= says(connection) < 1
    link.heal()
    assert min(says(connection) for _ in range(5)) < 0.1


def test_a_rate_is_that_of_each_way(link: Link, dial: Dial) -> None:
    connection = dial()
    link.slow_down(bytes_per_second=100_000)
    assert 0.8 <= says(connection, b"x" * 40_000) < 3


def test_a_lost_packet_comes_later_and_in_its_place(link: Link, dial: Dial) -> None:
    connection = dial()
    link.slow_down(loss=1.0)
    assert 0.4 <= says(connection) < 2
    link.slow_down(loss=0.5)
    assert says(connection, os.urandom(300_000)) < 5
    link.slow_down(loss=0.0)
    assert min(says(connection) for _ in range(5)) < 0.1


def test_heal_ends_a_wait_that_has_begun(link: Link, dial: Dial) -> None:
    connection = dial()
    link.slow_down(bytes_per_second=100)
    connection.sendall(b"x" * 10_000)
    assert silent(connection)
    link.heal()
    assert exactly(connection, 10_000) == b"x" * 10_000


# -- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["open", "cut", "stall", "half_open", "slow"])
def test_close_leaves_no_thread_no_port_and_no_connection(state: str, echo: Echo) -> None:
    threads, files = threads_of_links(), open_files()
    link = Link("127.0.0.1", echo.port)
    connection = socket.create_connection(("127.0.0.1", link.port), 5)
    says(connection)
    if state == "slow":
        link.slow_down(delay=60)
        connection.sendall(b"x")
    elif state != "open":
        getattr(link, state)()
    if state == "stall":
        socket.create_connection(("127.0.0.1", link.port), 5).close()
    link.close()
    link.close()
    assert is_reset(connection)
    connection.close()
    eventually(lambda: echo.here == 0)
    assert threads_of_links() == threads
    with socket.create_server(("127.0.0.1", link.port), reuse_port=False):
        pass
    eventually(lambda: open_files() == files)


def threads_of_links() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "link"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path.iterdir would be one more


def test_faults_may_come_from_any_thread(link: Link, dial: Dial) -> None:
    faults = [link.cut, link.stall, link.half_open, link.reset, link.heal] * 10
    threads = [threading.Thread(target=fault) for fault in faults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    link.heal()
    says(dial())
