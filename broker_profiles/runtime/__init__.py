"""What makes Celery itself safer or faster, at the points where Celery lets itself be extended."""
