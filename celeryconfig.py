"""Celery's settings. The reasons are measured: docs/decisions.md tells each one.

The broker carries hints (ids) only: no result backend, no eta, no countdown. What is due, who holds it and what
was sent are rows in PostgreSQL, so losing the broker loses nothing.
"""

from worker.settings import load_settings

_settings = load_settings()

broker_url = _settings.broker_url
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_transport_options = {
    "visibility_timeout": 600,
    "unacked_restore_interval": 10,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}

task_acks_late = True
task_reject_on_worker_lost = False  # the lease recovers; redelivery of a poison task would loop
task_ignore_result = True
task_store_errors_even_if_ignored = False
task_serializer = "json"
accept_content = ["json"]
task_publish_retry = False  # a lost hint is sent again by the next tick

# Threads: the work waits for the provider, and no engine is shared over a fork. Time limits belong to prefork; here
# every call has its own time limit and the lease outlasts their sum (worker/settings.py checks it).
worker_pool = "threads"
worker_concurrency = 8
worker_prefetch_multiplier = 1
worker_consumer = "worker.celery_app:SafeConsumer"
worker_soft_shutdown_timeout = 45
worker_hijack_root_logger = False
worker_send_task_events = False

enable_utc = True
timezone = "UTC"
imports = ["worker.tasks"]
# What was not read when the next one is sent is worthless.
beat_schedule = {
    name: {"task": f"dunning.{name}", "schedule": seconds, "options": {"expires": seconds}}
    for name, seconds in (
        ("tick", _settings.tick_seconds),
        ("catch_up", 300.0),
        *((hourly, 3600.0) for hourly in ("sweep_invoices", "audit", "clean_up", "risk", "prevent")),
    )
}
