"""The Celery application of this package."""

from broker_profiles import celery_app

app = celery_app(
    "tasks",
    include=["tasks.arithmetic", "tasks.text", "tasks.periodic", "tasks.flaky"],
)
app.config_from_object("config.celeryconfig")
