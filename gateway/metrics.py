"""The gateway's metrics, each with the question that it answers.

Labels are closed vocabularies: a model that is not in the catalogue counts under `other`; no key, account, user or
address is ever a label.
"""

from prometheus_client import Counter, Gauge, Histogram

OTHER = "other"
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FAST = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

REQUESTS = Counter(
    "weir_requests_total", "How did requests that were admitted end?", ["dialect", "endpoint", "model", "outcome"]
)
REFUSALS = Counter("weir_refusals_total", "What does Weir itself refuse, and why?", ["code"])
REQUEST_SECONDS = Histogram("weir_request_seconds", "How long do requests take, all in all?", buckets=_SLOW)
OVERHEAD_SECONDS = Histogram(
    "weir_overhead_seconds", "How long does Weir itself take before the provider is asked?", buckets=_FAST
)
TTFT_SECONDS = Histogram("weir_ttft_seconds", "How long until the provider's first byte?", buckets=_SLOW)
STREAM_CHUNKS = Counter("weir_stream_chunks_total", "How many pieces of streams were relayed?")
OPEN_STREAMS = Gauge("weir_open_streams", "How many streams are open now?", multiprocess_mode="livesum")
TOKENS = Counter("weir_tokens_total", "What did providers count?", ["provider", "model", "bucket"])
CHARGE_NANOS = Counter("weir_charge_nanos_total", "What was charged, in nano-USD?", ["provider", "model"])
SHORTFALL_NANOS = Counter("weir_shortfall_nanos_total", "What could not be charged, in nano-USD?")
ESTIMATED = Counter("weir_estimated_total", "How many bills were counted from what was seen?", ["provider"])
UPSTREAM_REQUESTS = Counter("weir_upstream_requests_total", "How do upstreams answer?", ["upstream", "status"])
FAILOVERS = Counter("weir_failovers_total", "How often was a request sent on to another upstream?", ["upstream"])
FALLBACKS = Counter(
    "weir_fallbacks_total", "How often did another model serve in place of the one asked for?", ["model", "fallback"]
)
UPSTREAM_OPEN = Gauge(
    "weir_upstream_open", "How many requests are at each upstream now?", ["upstream"], multiprocess_mode="livesum"
)
UPSTREAM_USABLE = Gauge(
    "weir_upstream_usable",
    "Which models can be asked for at which upstreams (1), by the worker that says no (0) if one does?",
    ["upstream", "model"],
    multiprocess_mode="livemin",
)
CREDENTIAL_REFUSED = Counter(
    "weir_upstream_credential_refused_total", "How often did a provider refuse the operator's credential?", ["upstream"]
)
UPSTREAM_LIMITED = Counter(
    "weir_upstream_limited_total", "How often was an upstream passed over because it was at its limit?", ["upstream"]
)
QUEUE_WAITING = Gauge(
    "weir_queue_waiting", "How many requests wait for room at an upstream now?", ["model"], multiprocess_mode="livesum"
)
SETTLES_RETAINED = Gauge(
    "weir_settles_retained", "How many ended requests wait for Redis to take their charge?", multiprocess_mode="livesum"
)
