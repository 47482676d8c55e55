"""Has what a case left on a server of others removed, by processes of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from broker_profiles.comparison import cleaning
from broker_profiles.comparison.client import Client, ClientError, ClientHung
from broker_profiles.comparison.variables import PREFIX_VARIABLE
from broker_profiles.errors import redact

logger = logging.getLogger(__name__)

#: How long removing what one application has left may take, in seconds.
_WITHIN = 60.0

_LONGEST = 500


def remove_leftovers(column: str, prefixes: Iterable[str], environ: Mapping[str, str], folder: Path) -> None:
    """Remove what applications of these prefixes have left; warn of what stays, in one line.

    `environ` leads to the servers as the case began: it may have given its own processes a wrong password.
    """
    failed: list[str] = []
    for prefix in sorted(prefixes):
        client = Client({**environ, PREFIX_VARIABLE: prefix}, folder / "cleaning.log")
        try:
            failed += client.call(cleaning.remove_all, within=_WITHIN)
        except (ClientError, ClientHung) as error:
            failed.append(str(error))
        finally:
            client.kill()
    if failed:
        why = " ".join(redact("; ".join(failed)).split())[:_LONGEST]
        names = " and ".join(sorted(prefixes))
        logger.warning("%s: not all of %s could be removed from a server of others: %s", column, names, why)
