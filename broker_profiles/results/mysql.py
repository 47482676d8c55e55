"""Results in MySQL or MariaDB."""

from broker_profiles.results.sqlalchemy import store

STORE = store("mysql", "MySQL >= 8 or MariaDB >= 10.6", "pymysql")
