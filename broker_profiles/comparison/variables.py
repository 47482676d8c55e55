"""The environment of the suite's own processes."""

#: The prefix of every queue and exchange of a run, so that it disturbs nothing else on a server.
PREFIX_VARIABLE = "COMPARISON_PREFIX"

#: Celery settings that a case changes, as a JSON object.
SETTINGS_VARIABLE = "COMPARISON_SETTINGS"
