"""Result stores: one file each, with its Celery settings and the promises it keeps."""
