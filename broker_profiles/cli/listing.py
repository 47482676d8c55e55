"""`list`: every broker and result store, what each keeps, and what is missing to use it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import click

from broker_profiles.cli import output
from broker_profiles.profile import (
    BROKER_GUARANTEES,
    CONTRACT,
    RESULT_GUARANTEES,
    Broker,
    Guarantees,
    Profile,
    ResultStore,
)
from broker_profiles.registry import BROKERS, RESULT_STORES, find_broker, find_results, resolve
from broker_profiles.settings import address_variable


@click.command("list")
@output.name_argument
@click.option("--verbose", is_flag=True, show_envvar=True, help="Say why each promise is not kept.")
@output.json_option
def list_profiles(name: str | None, verbose: bool, json: bool) -> None:
    """List brokers and result stores, or what the profile NAME promises.

    A profile is BROKER[:MODE][+RESULTS], such as redis:fast+postgresql.
    """
    if name:
        profile = resolve(name)
        output.print_json(_profile_as_data(profile)) if json else _print_profile(profile)
        return
    brokers = [find_broker(known) for known in BROKERS]
    stores = [find_results(known) for known in RESULT_STORES]
    if json:
        data = {"brokers": [_broker_as_data(broker) for broker in brokers]}
        data["results"] = [_store_as_data(store) for store in stores]
        output.print_json({**data, "contract": dict(CONTRACT)})
        return
    _print_brokers(brokers)
    _print_stores(stores)
    output.print_line("RESULT_REDIS_URL and its like place results elsewhere than REDIS_URL and its like.")
    if verbose:
        _print_reasons(brokers, stores)
    else:
        output.print_line("`list --verbose` says why, `list NAME` spells out the promises of one profile.")


# -- tables -------------------------------------------------------------------------------------------


def _print_brokers(brokers: Iterable[Broker]) -> None:
    table = output.table("Broker", "About", "Keeps", "Lacks", about=5, keeps=3, lacks=3)
    for broker in brokers:
        for number, (mode, guarantees) in enumerate(broker.guarantees.items()):
            name = broker.name if number == 0 else f"{broker.name}:{mode}"
            about = _about(broker) if number == 0 else []
            if number == 0 and broker.default_results != broker.name:
                about.append(f"results: {broker.default_results}")
            about.append(broker.notes.get(mode, ""))
            kept, lacking = condensed(guarantees.kept), condensed(guarantees.not_offered)
            table.add_row(*output.cells(name, "; ".join(filter(None, about)), kept, lacking))
    output.console().print(table)


def _print_stores(stores: Iterable[ResultStore]) -> None:
    table = output.table("Results", "About", "Keeps", "Lacks", about=5, keeps=3, lacks=3)
    for store in stores:
        kept, lacking = condensed(store.guarantees.kept), condensed(store.guarantees.not_offered)
        table.add_row(*output.cells(store.name, "; ".join(_about(store)), kept, lacking))
    output.console().print(table)


def _print_reasons(brokers: Iterable[Broker], stores: Iterable[ResultStore]) -> None:
    table = output.table("Where", "Promise", "Why it is not kept")
    for broker in brokers:
        for mode, guarantees in broker.guarantees.items():
            _add_reasons(table, f"{broker.name}:{mode}", guarantees)
    for store in stores:
        _add_reasons(table, f"+{store.name}", store.guarantees)
    output.console().print(table)


def _add_reasons(table: Any, where: str, guarantees: Guarantees) -> None:
    for id_ in filter(guarantees.not_offered.__contains__, CONTRACT):
        table.add_row(*output.cells(where, f"{id_}: {CONTRACT[id_]}", guarantees.not_offered[id_]))


def _print_profile(profile: Profile) -> None:
    note = profile.broker.notes.get(profile.mode, "")
    output.print_line(f"{profile.name}: {profile.broker.title}, mode {profile.mode}" + (note and f": {note}"))
    output.print_line(f"results: {profile.results.name}, {profile.results.title}")
    output.print_line(f"priorities that make a difference: {profile.guarantees.priority_levels}")
    for line in sorted({_pip_line(profile.broker), _pip_line(profile.results)} - {""}):
        output.print_line(f"to use it: {line}")
    table = output.table("Promise", "Kept", "What it says, or why not")
    for id_, wording in CONTRACT.items():
        reason = profile.guarantees.reason(id_)
        table.add_row(*output.cells(id_, "no" if reason else "yes", reason or wording))
    output.console().print(table)


def condensed(ids: Iterable[str]) -> str:
    """Return ids of the contract in its order, runs shortened: `DEL-1..4,6 ETA-1..3`."""
    families: dict[str, list[int]] = {}
    wanted = set(ids)
    for id_ in filter(wanted.__contains__, CONTRACT):
        family, number = id_.split("-")
        families.setdefault(family, []).append(int(number))
    return " ".join(f"{family}-{_runs(numbers)}" for family, numbers in families.items())


def _runs(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


# -- data ---------------------------------------------------------------------------------------------


def _broker_as_data(broker: Broker) -> dict[str, Any]:
    modes = {
        str(mode): {
            "note": broker.notes.get(mode, ""),
            **_guarantees_as_data(guarantees, only=BROKER_GUARANTEES),
        }
        for mode, guarantees in broker.guarantees.items()
    }
    return {**_side_as_data(broker), "default_results": broker.default_results, "modes": modes}


def _store_as_data(store: ResultStore) -> dict[str, Any]:
    return {**_side_as_data(store), **_guarantees_as_data(store.guarantees, only=RESULT_GUARANTEES)}


def _profile_as_data(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "broker": profile.broker.name,
        "mode": str(profile.mode),
        "results": profile.results.name,
        "installed": not (_missing(profile.broker) or _missing(profile.results)),
        **_guarantees_as_data(profile.guarantees),
    }


def _side_as_data(side: Broker | ResultStore) -> dict[str, Any]:
    return {
        "name": side.name,
        "title": side.title,
        "address": address_variable(side.address) or None,
        "installed": not _missing(side),
        "install": _pip_line(side) or None,
    }


def _guarantees_as_data(guarantees: Guarantees, only: Iterable[str] = CONTRACT) -> dict[str, Any]:
    ids = [id_ for id_ in CONTRACT if id_ in set(only)]
    return {
        "keeps": [id_ for id_ in ids if guarantees.holds(id_)],
        "does_not_keep": {id_: guarantees.reason(id_) for id_ in ids if not guarantees.holds(id_)},
        "priority_levels": guarantees.priority_levels,
        "chords": guarantees.chords,
    }


def _missing(side: Broker | ResultStore) -> bool:
    return any(importlib.util.find_spec(module) is None for module in side.modules)


def _pip_line(side: Broker | ResultStore) -> str:
    return f"pip install 'broker-profiles[{side.extra}]'" if _missing(side) else ""


def _about(side: Broker | ResultStore) -> list[str]:
    variable = address_variable(side.address)
    about = [f"{side.title}, at {variable}" if variable else side.title]
    return [*about, f"not installed: {_pip_line(side)}"] if _missing(side) else about
