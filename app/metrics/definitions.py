"""All metrics of the service. No other module makes one. The alerts and the dashboard in `deploy/` use their names.

No metric has a tenant as a label: with 2,000 tenants an answer would take 26 MB. The log and the table
`tenant_summaries` tell the tenants apart. Every label has few values: a route's template, never a path.

A gauge says how the processes of a server are added up: `livesum` adds the values of those that run, `livemax` takes
the greatest.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # Prometheus ignores them.
REGISTRY: Final = CollectorRegistry()
# A payment takes 1 to 10 ms; QUEUE_SECONDS and REQUEST_SECONDS end at 5 and 30 s.
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_POSTING_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0)
_WAIT_BUCKETS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SWEEP_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _sum(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY, multiprocess_mode="livesum")


def _greatest(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY, multiprocess_mode="livemax")


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


# Requests. `route` is the template of the route, `other` for a path without one; `status` is a class, like 2xx.
REQUEST_SECONDS: Final = _histogram(
    "wallet_http_request_seconds",
    "Requests and their time until the answer began",
    _REQUEST_BUCKETS,
    *("route", "method", "status"),
)
PROBLEMS: Final = _counter("wallet_problems_total", "Problems that were answered, by their code", "code", "status")
# `limit` is rate, concurrency or pending; `of` says whose: caller, tenant, process, address, account, …
LIMITED: Final = _counter("wallet_limited_total", "Requests refused with 429, by the limit", "limit", "of")

# Database connections. `kind` is shared (the shared side) or tenants.
POOL_IN_USE: Final = _sum("wallet_pool_in_use", "Connections in use", "kind")
POOL_WAITING: Final = _sum("wallet_pool_waiting", "Requests that wait for a connection", "kind")
POOL_OPEN: Final = _sum("wallet_pool_open", "Open connections, in use or idle")
POOL_OPENED: Final = _counter("wallet_pool_opened_total", "Connections opened", "kind")
POOL_CLOSED: Final = _counter("wallet_pool_closed_total", "Connections closed")
POOL_WAIT_SECONDS: Final = _histogram(
    "wallet_pool_wait_seconds", "Waits for a connection, of requests that had to wait", _WAIT_BUCKETS, "kind"
)
STATEMENT_RETRIES: Final = _counter(
    "wallet_statement_retries_total", "Statements that were sent again after their connection broke"
)
# By SQLSTATE: 40P01 is a deadlock, 55P03 a lock that was not free, 57014 a statement that took too long.
DATABASE_ERRORS: Final = _counter(
    "wallet_database_errors_total", "Passing database errors that were answered with 503", "sqlstate"
)

# The ledger. `outcome` is posted, replayed (the key was used before), the code of the refusal, or failed.
POSTINGS: Final = _counter("wallet_postings_total", "Movements asked for, by type and outcome", "type", "outcome")
POSTING_SECONDS: Final = _histogram(
    "wallet_posting_seconds", "The time of a posting in the database, with its waits", _POSTING_BUCKETS, "type"
)
MOVED_MINOR: Final = _counter(
    "wallet_moved_minor_total", "Amounts posted, in minor units, without their sign", "type", "currency"
)

# Events. `sink` is broker or webhook, `result` is delivered or failed. A relay sets them.
EVENTS_UNSTAMPED: Final = _greatest("wallet_events_unstamped_tenants", "Tenants that have events without a position")
EVENTS_UNSTAMPED_AGE: Final = _greatest(
    "wallet_events_unstamped_age_seconds", "How long a tenant has had events without a position, at most"
)
EVENTS_SWEEP_SECONDS: Final = _histogram(
    "wallet_events_sweep_seconds", "The time of one round over all tenants with waiting events", _SWEEP_BUCKETS
)
EVENTS_STAMPED: Final = _counter("wallet_events_stamped_total", "Events that were given their position")
SINK_LAG: Final = _greatest("wallet_sink_lag_seconds", "How long a tenant has had undelivered events, at most", "sink")
DELIVERED: Final = "delivered"
FAILED: Final = "failed"
SINK_ATTEMPTS: Final = _counter("wallet_sink_attempts_total", "Attempts to deliver events", "sink", "result")
LANES_OPEN: Final = _greatest("wallet_webhook_lanes_open", "Wallets whose events wait for an endpoint that failed")
EVENTS_PARKED: Final = _greatest("wallet_webhook_events_parked", "Events that were tried as often as the schedule says")
ENDPOINTS_DISABLED: Final = _greatest("wallet_webhook_endpoints_disabled", "Endpoints disabled after failures")
BROKER_CONFIRMS: Final = _counter("wallet_broker_confirms_total", "Messages that the broker confirmed")
BROKER_RETURNS: Final = _counter("wallet_broker_returns_total", "Messages that the broker returned or refused")
# `outcome` is completed, refused, repeated (it had its outcome before) or dead_lettered, with the type unknown.
COMMANDS: Final = _counter("wallet_commands_total", "Commands from the broker, by type and outcome", "type", "outcome")
# `audience` is staff or member.
EVENT_STREAMS: Final = _sum("wallet_event_streams", "Clients that read a stream of events", "audience")

# The prover.
PROOF_AGE: Final = _greatest(
    "wallet_proof_age_seconds", "The time since the tenant that was proved longest ago was proved"
)
PROOF_FINDINGS: Final = _greatest("wallet_proof_findings", "Findings of the last proof of each tenant")
