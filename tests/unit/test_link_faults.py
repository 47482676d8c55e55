"""The link does to real connections what a network does, and nothing else."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from broker_profiles.comparison.link import Link
from tests.unit.echo import QUIET, Dial, Echo, exactly, is_reset, says, silent
from tests.waiting import until

# -- cut ------------------------------------------------------------------------------------------


def test_cut_resets_what_there_is_and_refuses_what_comes(link: Link, dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    link.cut()
    assert is_reset(connection)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            dial()
    until(lambda: echo.ended == ["reset"], 5, "the server hears of the reset")
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
    until(lambda: echo.here == 0, 5, "the server has no connection")


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
    until(lambda: echo.here == 1, 5, "the server has one connection")


def test_an_outage_may_become_a_partition(link: Link, dial: Dial) -> None:
    link.cut()
    link.stall()
    connection = dial()
    connection.sendall(b"hello")
    assert silent(connection)
    link.heal()
    assert exactly(connection, 5) == b"hello"


# -- mute -----------------------------------------------------------------------------------------


def test_a_mute_server_hears_and_is_not_heard(link: Link, dial: Dial, echo: Echo) -> None:
    old = dial()
    says(old)
    link.mute()
    old.sendall(b"1" * 1_000_000)
    new = dial()
    new.sendall(b"2")
    until(lambda: echo.heard.count(b"1") == 1_000_000 and b"2" in echo.heard, 5, "the server hears both")
    assert silent(old)
    assert silent(new)


def test_heal_ends_those_that_have_missed_something_and_no_others(link: Link, dial: Dial, echo: Echo) -> None:
    """What is left of a conversation with a hole in it would be taken for the answer to something else."""
    missed, idle = dial(), dial()
    says(missed)
    says(idle)
    link.mute()
    missed.sendall(b"lost")
    until(lambda: b"lost" in echo.heard, 5, "the server hears it")
    assert silent(missed)
    link.heal()
    assert is_reset(missed)
    says(idle)
    says(dial())
    until(lambda: echo.ended == ["reset"], 5, "the server hears of the reset")


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_mute_server_hears_of_a_client_that_goes(how: str, link: Link, dial: Dial, echo: Echo) -> None:
    connection = dial()
    says(connection)
    link.mute()
    leave(connection, how)
    until(lambda: echo.ended == [how], 5, "the server hears of it")


def test_nobody_is_told_of_a_mute_server_that_goes(link: Link, dial: Dial, echo: Echo) -> None:
    """Neither those that it had, nor those that find nothing where it was."""
    idle, busy = dial(), dial()
    says(idle)
    says(busy)
    link.mute()
    echo.close()
    echo.end_all()
    busy.sendall(b"hello")
    late = dial()
    late.sendall(b"hello")
    assert silent(idle)
    assert silent(busy)
    busy.sendall(b"hello")
    assert silent(busy)
    assert silent(late)
    link.heal()
    for connection in (idle, busy, late):
        assert is_reset(connection)


def test_a_mute_server_may_become_an_outage_or_a_partition(link: Link, dial: Dial, echo: Echo) -> None:
    missed = dial()
    says(missed)
    link.mute()
    missed.sendall(b"lost")
    until(lambda: b"lost" in echo.heard, 5, "the server hears it")
    link.stall()
    missed.sendall(b"held")
    assert silent(missed)
    assert b"held" not in echo.heard
    link.cut()
    assert is_reset(missed)
    link.mute()
    late = dial()
    late.sendall(b"late")
    until(lambda: b"late" in echo.heard, 5, "the server hears it")
    assert silent(late)
    link.heal()
    says(dial())


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
    until(lambda: echo.ended == ["reset"], 5, "the server hears of the reset")


def test_reset_is_of_those_there_are(link: Link, dial: Dial, echo: Echo) -> None:
    old = dial()
    says(old)
    link.reset()
    assert is_reset(old)
    says(dial())
    until(lambda: echo.ended == ["reset"], 5, "the server hears of the reset")
