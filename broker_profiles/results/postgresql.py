"""Results in PostgreSQL."""

from broker_profiles.results.sqlalchemy import store

STORE = store("postgresql", "PostgreSQL >= 13", "psycopg")
