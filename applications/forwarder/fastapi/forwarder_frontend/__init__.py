"""The Forwarder's frontend: it validates requests, records them durably in Redis and hands them to Celery."""
