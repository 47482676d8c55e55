"""`show`: each effective Celery setting of a profile, where it comes from, and why."""

from __future__ import annotations

import click

from broker_profiles.cli import output
from broker_profiles.cli.application import subject
from broker_profiles.cli.effective import effective_settings
from broker_profiles.profile import Setting


@click.command()
@output.name_argument
@output.json_option
def show(name: str | None, json: bool) -> None:
    """Show every Celery setting of the profile NAME, or of BROKER_PROFILE's.

    As `celery -A app profile show`, also what the application sets itself. Passwords are never shown.
    """
    about = subject(name)
    settings = effective_settings(about.profile, about.environment, about.app)
    if json:
        data = [
            {
                "name": setting.name,
                "value": output.harmless(setting.value, setting.name),
                "source": setting.source,
                "reason": setting.reason,
            }
            for setting in settings
        ]
        output.print_json({"profile": about.profile.name, "settings": data})
        return
    output.print_line(f"profile {about.profile.name}")
    table = output.table("Setting", "Value", "Source", "Why", setting=5, value=5, source=3, why=5)
    for setting in settings:
        table.add_row(*output.cells(setting.name, _shown(setting), setting.source, setting.reason))
    output.console().print(table)


def _shown(setting: Setting) -> str:
    hidden = output.harmless(setting.value, setting.name)
    return Setting(setting.name, hidden, setting.reason).shown()
