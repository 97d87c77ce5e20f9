"""The Forwarder's scheduler: Celery Beat, one at a time."""
