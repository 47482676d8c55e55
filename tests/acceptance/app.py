"""The application under test; its profile comes from the environment, as a user's would."""

import os

from broker_profiles import celery_app

app = celery_app("acceptance", include=["tests.acceptance.tasks"])
app.conf.task_default_queue = os.environ.get("ACCEPTANCE_QUEUE", "celery")
