"""The deployment: Celery's configuration here, the servers' own files and one environment a profile below."""
