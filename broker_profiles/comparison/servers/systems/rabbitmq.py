"""RabbitMQ with a user and a virtual host of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from ..base import Server
from ..description import Account, Native, Site, System

# Two schedulers that sleep rather than spin: a test server shares its machine.
ERLANG_ARGUMENTS = (
    "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
    # What comes due while it starts may find no route; as in config/rabbitmq/advanced.config.
    " -rabbit dead_letter_worker_publisher_confirm_timeout 10000"
)

# Returns when an alarm is on, and nobody's messages are taken any more.
_LOOK = "case rabbit_alarm:get_alarms() of [] -> timer:sleep(50), Look(); _ -> ok end"
_UNTIL_ALARM = f"(fun Look() -> {_LOOK} end)()."

# How long a delivery may wait for its acknowledgement, and how often that is looked at, in milliseconds.
_USUAL = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}


class RabbitMQProcess(Native):
    """rabbitmq-server, run by its script below lib: the one in sbin changes user and folder."""

    package = "rabbitmq-server"
    programs = ("rabbitmq-server", "erl", "epmd")
    # The script that runs the server in place comes before Debian's wrapper on PATH.
    folders = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/sbin", "/usr/local/sbin")
    user = "rabbitmq"

    def environment(self, site: Site) -> Mapping[str, str]:
        folder = site.folder
        return {
            "RABBITMQ_NODENAME": f"{site.account.name}_{site.account.port}@localhost",
            "RABBITMQ_NODE_PORT": str(site.account.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(site.other_port),
            "ERL_EPMD_PORT": str(site.side_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "server.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"{ERLANG_ARGUMENTS} -kernel inet_dist_use_interface {{127,0,0,1}}"
            ),
            # Replace the shell by the virtual machine: the process that we started is the server.
            "RABBITMQ_ALLOW_INPUT": "true",
            "ERL_CRASH_DUMP_BYTES": "0",
        }

    def write_files(self, site: Site) -> None:
        account = site.account
        site.write("rabbitmq-env.conf", "")  # else the system's own would be read
        site.write("advanced.config", "[].\n")
        site.write("enabled_plugins", "[].\n")
        site.write(
            "rabbitmq.conf",
            f"default_user = {account.user}\ndefault_pass = {account.password}\n"
            f"default_vhost = {account.name}\nloopback_users = none\n"
            "disk_free_limit.absolute = 50MB\n",
        )

    def helper(self, site: Site) -> Sequence[str]:
        # The port mapper in the foreground: RabbitMQ would start a daemon that outlives it.
        return [str(site.programs["epmd"]), "-port", str(site.side_port), "-address", "127.0.0.1"]

    def command(self, site: Site) -> Sequence[str]:
        return [str(site.programs["rabbitmq-server"]), "-noinput"]


class RabbitMQ(System):
    """RabbitMQ 3.10 or later, by AMQP 0-9-1."""

    name = "rabbitmq"
    url_variable = "RABBITMQ_URL"
    schemes = ("amqp", "amqps", "pyamqp", "librabbitmq")
    driver = "amqp"
    image = "rabbitmq:4-management"
    container_port = 5672
    native = RabbitMQProcess()

    def url(self, account: Account) -> str:
        return f"amqp://{account.address}/{account.name}"

    def probe(self, url: str, timeout: float) -> str:
        import amqp

        parts = urlsplit(url)
        secure = parts.scheme == "amqps"
        connection = amqp.Connection(
            host=f"{parts.hostname or '127.0.0.1'}:{parts.port or (5671 if secure else 5672)}",
            userid=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            virtual_host=unquote(parts.path[1:]) or "/",
            ssl=secure,
            connect_timeout=timeout,
            read_timeout=timeout,
            write_timeout=timeout,
        )
        try:
            connection.connect()
            return str(connection.server_properties["version"])
        finally:
            connection.collect()  # no closing handshake: it could hang where the opening did not

    def environment(self, account: Account) -> Mapping[str, str]:
        return {
            "RABBITMQ_DEFAULT_USER": account.user,
            "RABBITMQ_DEFAULT_PASS": account.password,
            "RABBITMQ_DEFAULT_VHOST": account.name,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_ARGUMENTS,
        }

    def fill(self, server: Server) -> Callable[[], None]:
        """An alarm: it uses more memory than it may, and takes nothing from anybody."""
        limit = ("rabbitmqctl", "set_vm_memory_high_watermark")
        server.run(*limit, "absolute", "1MB")
        server.run("rabbitmqctl", "--timeout", "20", "eval", _UNTIL_ALARM)

        def give_back() -> None:
            server.run(*limit, "0.6")

        return give_back

    def acknowledge_within(self, server: Server, seconds: float) -> Callable[[], None]:
        """By its `consumer_timeout`, and a look at it every second: there is no shorter one."""
        _set(server, {"consumer_timeout": round(seconds * 1000), "channel_tick_interval": 1000})
        return lambda: _set(server, _USUAL)

    def stored(self, server: Server) -> int:
        """The messages of all queues, delivered or not; of a quorum queue as of up to 5 s ago."""
        host = unquote(urlsplit(server.url).path[1:])
        printed = server.run("rabbitmqctl", "--silent", "--vhost", host, "list_queues", "messages")
        return sum(map(int, printed.split()))


def _set(server: Server, milliseconds: Mapping[str, int]) -> None:
    """Set parameters of a server until it ends or they are set again."""
    calls = [f"application:set_env(rabbit, {name}, {value})" for name, value in milliseconds.items()]
    server.run("rabbitmqctl", "eval", f"{', '.join(calls)}.")


SYSTEM = RabbitMQ()
