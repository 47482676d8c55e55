"""Whoever asks a database for TLS and says nothing of verification is verified to."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from broker_profiles import load
from broker_profiles.settings import Environment
from broker_profiles.tls import verified

EMPTY = Environment({})


@pytest.fixture(autouse=True)
def _authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", __file__)


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("postgresql://u:p%40@h/db", ""),
        ("postgresql://h/db?sslmode=prefer", "sslmode=prefer"),
        ("postgresql://h/db?sslmode=verify-ca&sslrootcert=/a.pem", "sslmode=verify-ca&sslrootcert=/a.pem"),
        ("postgresql://h/db?sslmode=require", "sslmode=verify-full&sslrootcert=system"),
        ("postgres://h1,h2:1/db?sslmode=require&a=b", "a=b&sslmode=verify-full&sslrootcert=system"),
        ("postgresql://h/db?sslmode=require&sslrootcert=/a.pem", "sslrootcert=/a.pem&sslmode=verify-full"),
        (
            "postgresql+psycopg:///db?host=a:1&host=b:2&sslmode=require",
            "host=a:1&host=b:2&sslmode=verify-full&sslrootcert=system",
        ),
        ("mysql://u:p%40@h/db", ""),
        ("mysql://h/db?charset=utf8mb4", "charset=utf8mb4"),
        ("mysql://h/db?ssl=true", f"ssl_ca={__file__}"),
        ("mariadb://h/db?ssl_cert=/c.pem", f"ssl_cert=/c.pem&ssl_ca={__file__}"),
        ("mysql+pymysql://h/db?ssl_check_hostname=true", f"ssl_check_hostname=true&ssl_ca={__file__}"),
        ("mysql://h/db?ssl_verify_cert=true&ssl_verify_identity=1", f"ssl_ca={__file__}"),
        ("mysql://h/db?ssl_ca=/a.pem", "ssl_ca=/a.pem"),
        ("mysql://h/db?ssl_ca=/a.pem&ssl_verify_identity=true", "ssl_ca=/a.pem"),
        ("mysql://h/db?ssl_ca=/a.pem&ssl_verify_identity=false", "ssl_ca=/a.pem&ssl_check_hostname=false"),
        ("mysql://h/db?ssl=true&ssl_verify_cert=false", "ssl_verify_cert=false"),
        ("mysql://h/db?ssl_disabled=true", "ssl_disabled=true"),
        ("mysql://h/db?ssl=false", ""),
    ],
)
def test_an_address_that_asks_for_tls_verifies_unless_it_says_otherwise(url: str, query: str) -> None:
    where, _, _ = url.partition("?")
    assert verified(url, EMPTY) == f"{where}?{query}".rstrip("?")


def test_what_libpq_reads_from_the_environment_counts_too() -> None:
    environment = Environment({"PGSSLMODE": "require", "PGSSLROOTCERT": "/a.pem"})
    assert verified("postgresql://h/db", environment) == "postgresql://h/db?sslmode=verify-full"
    assert verified("postgresql://h/db?sslmode=disable", environment) == "postgresql://h/db?sslmode=disable"


@pytest.mark.parametrize(
    ("profile", "asks", "verifies"),
    [("postgresql", "sslmode=require", "sslmode=verify-full"), ("mysql", "ssl=true", f"ssl_ca={__file__}")],
)
def test_broker_and_results_of_a_profile_verify(profile: str, asks: str, verifies: str) -> None:
    environment = Environment({"DATABASE_URL": f"{profile}://u@h/db?{asks}"})
    values = {setting.name: setting.value for setting in load(profile).settings(environment)}
    assert verifies in values["broker_url"]
    assert verifies in values["result_backend"]


def test_pymysql_is_told_to_verify_certificate_and_name() -> None:
    url = make_url(verified("mysql+pymysql://h/db?ssl=true", EMPTY))
    assert url.get_dialect()().create_connect_args(url)[1]["ssl"] == {"ca": __file__}
