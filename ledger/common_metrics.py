"""Metrics that more than one kind of process keeps; one scrape adds them up."""

from prometheus_client import Counter, Gauge, Histogram

SCRIPT_SECONDS = Histogram(
    "weir_script_seconds",
    "How long does a Redis script take, as its caller sees it?",
    ["script"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 2.5),
)
FENCED = Counter("weir_fenced_total", "How often did a script refuse because this server may not serve the partition?")
CONFIG_VERSION = Gauge(
    "weir_config_version",
    "Which catalogue version is in use, by the process that is furthest behind?",
    multiprocess_mode="livemin",
)
