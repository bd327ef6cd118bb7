"""The ledger worker's metrics, each with the question that it answers. No account, key or address is ever a label."""

from prometheus_client import Counter, Gauge

HOLDS_SWEPT = Counter("weir_holds_swept_total", "How many requests were abandoned and their holds freed?")
LAG_SECONDS = Gauge(
    "weir_ledger_lag_seconds", "How old was the oldest event when MongoDB had it?", multiprocess_mode="livemax"
)
BACKLOG = Gauge("weir_ledger_backlog", "How many events wait in Redis for MongoDB?", multiprocess_mode="livemax")
DEAD_EVENTS = Gauge("weir_dead_events", "How many events are parked for a person?", multiprocess_mode="livemax")
HOLDS = Gauge("weir_holds", "How many requests hold money now?", multiprocess_mode="livemax")
GAPS = Counter("weir_ledger_gaps_total", "How many sequence numbers of usage events are missing?")
CONSERVATION_ERROR = Gauge(
    "weir_conservation_error_nanos",
    "By how much do the books disagree, over all accounts?",
    multiprocess_mode="livemax",
)
REOPENED = Counter("weir_reopened_total", "How many partitions were opened after a restart, promotion or wipe?")
