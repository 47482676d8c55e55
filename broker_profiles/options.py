"""The tuning variables, `BROKER_PROFILE_...`: typed and bounded, with the unit in the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker_profiles.errors import InvalidSetting

PROFILE_VARIABLE = "BROKER_PROFILE"

#: What the name of every tuning variable begins with.
PREFIX = f"{PROFILE_VARIABLE}_"

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Option:
    """One tuning variable: its type is that of its default; bounds are inclusive."""

    name: str
    default: Value
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if isinstance(self.default, str):
            return "a text that is not empty"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{kind} from {self.minimum:.10g} to {self.maximum:.10g}"

    def parse(self, text: str) -> Value:
        """Return the value of `text`. Raises `InvalidSetting` where it is not allowed."""
        value: Value
        if isinstance(self.default, str):
            value = text.strip()
            allowed = value in self.choices if self.choices else bool(value)
        else:
            try:
                value = type(self.default)(text)
            except ValueError:
                raise self._invalid(text) from None
            allowed = (self.minimum or 0) <= value <= (self.maximum or 0)
        if not allowed:
            raise self._invalid(text)
        return value

    def _invalid(self, text: str) -> InvalidSetting:
        return InvalidSetting(name=self.variable, value=text, expected=self.expected)


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option(
            "lease_seconds",
            15.0,
            "how long a consumer that has stopped renewing keeps its messages; a task whose worker "
            "was killed runs again after this",
            minimum=1,
            maximum=3600,
        ),
        Option(
            "delivery_limit",
            5,
            "deliveries after which a message becomes a dead letter",
            minimum=1,
            maximum=1000,
        ),
        Option(
            "dead_letter_seconds",
            604_800.0,
            "how long a dead letter is kept",
            minimum=60,
            maximum=31_536_000,
        ),
        Option(
            "dead_letter_limit",
            10_000,
            "how many dead letters a queue keeps; the oldest go first",
            minimum=1,
            maximum=1_000_000,
        ),
        Option(
            "publish_timeout_seconds",
            3.0,
            "how long one attempt to send waits for a broker that does not answer; there are up to three",
            minimum=0.1,
            maximum=60,
        ),
        Option(
            "result_timeout_seconds",
            2.0,
            "how long a result store that does not answer is waited for",
            minimum=0.1,
            maximum=60,
        ),
        Option(
            "result_expires_seconds",
            86_400,
            "how long a result is kept",
            minimum=1,
            maximum=31_536_000,
        ),
        Option(
            "result_wait_seconds",
            86_400.0,
            "how long get() waits for a result where it is given no timeout, and a chord for its parts on a "
            "store that does not count them",
            minimum=1,
            maximum=31_536_000,
        ),
        Option(
            "shutdown_seconds",
            10.0,
            "how long running tasks may go on in a cold shutdown before they are put back",
            minimum=0,
            maximum=3600,
        ),
        Option(
            "embedded_path",
            "broker-profiles.sqlite3",
            "the file of the embedded profile, from the working directory",
        ),
        Option(
            "sqlite_synchronous",
            "NORMAL",
            "NORMAL survives the death of any process, FULL a power cut too, at a disk flush a message",
            choices=("NORMAL", "FULL"),
        ),
        Option(
            "signing_key_path",
            "",
            "the private key in PEM that messages are signed with; unsigned ones are refused then",
        ),
        Option("signing_certificate_path", "", "the certificate in PEM that goes with the key"),
        Option(
            "signing_trusted_path",
            "",
            "the folder with the certificates in PEM of everybody whose messages are taken",
        ),
    )
}
