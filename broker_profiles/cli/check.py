"""`check`: whether a profile works here and now, and what is wrong if not."""

from __future__ import annotations

import logging
from dataclasses import asdict

import click

from broker_profiles.cli import output
from broker_profiles.cli.application import subject
from broker_profiles.cli.probes import Finding, probe
from broker_profiles.errors import BrokerProfilesError


@click.command()
@output.name_argument
@output.json_option
def check(name: str | None, json: bool) -> None:
    """Connect to the broker and the result store of the profile NAME, or of BROKER_PROFILE's.

    Then ping the workers and, if one answers, send one task through it. Takes 15 seconds at most. Exit
    status 0: all is well; 1: something is not; 2: the configuration is wrong.
    """
    about = subject(name)
    app = about.application()
    # Drivers log what they are about to raise; without a handler that would be more lines on stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    findings: list[Finding] = []
    failure: BrokerProfilesError | None = None
    try:
        for finding in probe(app, about.profile, about.environment):
            findings.append(finding)
            if not json:
                output.print_line(f"{finding.name:8} {finding.detail} ({finding.seconds:.2f} s)")
    except BrokerProfilesError as error:
        failure = error
    finally:
        if app is not about.app:
            app.close()
    if json:
        output.print_json(
            {
                "profile": about.profile.name,
                "ok": failure is None,
                "error": output.one_line(failure) if failure else None,
                "checks": [asdict(finding) for finding in findings],
            }
        )
    if failure:
        raise failure
