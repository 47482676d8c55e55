"""Redis, or anything that speaks its protocol (Valkey by its image)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..base import Server
from ..description import Account, Native, Site, System

# What a broker needs: each write on disk before it is answered, and never an eviction.
DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "save": '""',
}


# How many elements a key has, by its type; any other, a string among them, is one.
_LENGTHS = {
    b"list": "LLEN",
    b"set": "SCARD",
    b"zset": "ZCARD",
    b"hash": "HLEN",
    b"stream": "XLEN",
}


class RedisProcess(Native):
    """redis-server, configured by a file so that no password is in the process list."""

    package = "redis-server"
    programs = ("redis-server",)
    user = "redis"

    def write_files(self, site: Site) -> None:
        options = {
            **DURABLE,
            "bind": "127.0.0.1",
            "port": str(site.account.port),
            "dir": str(site.folder),
            "requirepass": site.account.password,
        }
        site.write("redis.conf", "".join(f"{name} {value}\n" for name, value in options.items()))

    def command(self, site: Site) -> Sequence[str]:
        return [str(site.programs["redis-server"]), str(site.folder / "redis.conf")]


class Redis(System):
    """Redis 6.2 or later."""

    name = "redis"
    url_variable = "REDIS_URL"
    schemes = ("redis", "rediss")
    driver = "redis"
    image = "redis:8"
    container_port = 6379
    native = RedisProcess()

    def url(self, account: Account) -> str:
        return f"redis://:{account.password}@127.0.0.1:{account.port}/0"

    def probe(self, url: str, timeout: float) -> str:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),  # the caller polls
        )
        with client:
            client.ping()
            info = client.info("server")
        assert isinstance(info, dict)
        # Valkey states the version of Redis that it is compatible with, and its own beside it.
        return str(info.get("valkey_version") or info["redis_version"])

    def environment(self, account: Account) -> Mapping[str, str]:
        return {}

    def command(self, account: Account) -> Sequence[str]:
        # The image has no variable for a password; its entry point takes options.
        options = {**DURABLE, "save": "", "requirepass": account.password}
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def fill(self, server: Server) -> Callable[[], None]:
        """No memory is left; what it holds is kept, for nothing is evicted."""
        _set_memory(server.url, 1)
        return lambda: _set_memory(server.url, 0)

    def stored(self, server: Server) -> int:
        """The elements of all keys of its database."""
        import redis

        with redis.Redis.from_url(server.url) as client:
            # A key can come twice while the table grows.
            keys = list(set(client.scan_iter(count=1000)))
            asked = client.pipeline(transaction=False)
            for key in keys:
                asked.type(key)
            kinds = asked.execute()
            for key, kind in zip(keys, kinds, strict=True):
                asked.execute_command(_LENGTHS.get(kind, "EXISTS"), key)
            return sum(asked.execute())


def _set_memory(url: str, limit: int) -> None:
    """Allow so many bytes of memory, 0 for any."""
    import redis

    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", limit)


SYSTEM = Redis()
