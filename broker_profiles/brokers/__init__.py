"""Brokers: one file each, with its Celery settings mode by mode and the promises it then keeps."""
