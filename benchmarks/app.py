"""The application that is measured: a task that does nothing."""

from broker_profiles import celery_app

app = celery_app("benchmarks")


@app.task(name="benchmarks.noop", ignore_result=True)
def noop() -> None:
    """Do nothing."""
