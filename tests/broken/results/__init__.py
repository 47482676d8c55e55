"""Result stores that are broken on purpose: each module breaks that of the process that imports it.

Workers import one by Celery's own setting: `imports = ["tests.broken.results.dropped"]`.
"""
