"""The link carries what real connections say, as slowly as it is told to; closed, it leaves nothing."""

from __future__ import annotations

import hashlib
import os
import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker_profiles.comparison.link import Link
from tests.unit.echo import Dial, Echo, exactly, is_reset, says, silent
from tests.waiting import until

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


def test_what_has_passed_is_counted_both_ways_and_what_is_lost_is_not(link: Link, dial: Dial) -> None:
    first, second = dial(), dial()
    says(first, b"hello")
    says(second, b"hi")
    assert link.carried == 14
    link.half_open()
    first.sendall(b"lost")
    assert silent(first)
    assert link.carried == 14


def test_an_end_is_carried_on(dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    until(lambda: echo.ended == ["end"], 5, "the server hears of the end")


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


@pytest.mark.parametrize("state", ["open", "cut", "stall", "mute", "half_open", "slow"])
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
    until(lambda: echo.here == 0, 5, "the server has no connection")
    assert threads_of_links() == threads
    with socket.create_server(("127.0.0.1", link.port), reuse_port=False):
        pass
    until(lambda: open_files() == files, 5, "no file is left open")


def threads_of_links() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "link"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path.iterdir would be one more


def test_faults_may_come_from_any_thread(link: Link, dial: Dial) -> None:
    faults = [link.cut, link.stall, link.mute, link.half_open, link.reset, link.heal] * 10
    threads = [threading.Thread(target=fault) for fault in faults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    link.heal()
    says(dial())
