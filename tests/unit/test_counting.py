"""What the metrics say of requests: counted in memory first, and handed over as one."""

from typing import Any, cast

from prometheus_client import REGISTRY, Gauge

from gateway.settler import count
from gateway.upstream.client import Chosen, Upstreams
from gateway.upstream.pools import Pools
from ledger import tally
from ledger.catalogue import Target, Upstream
from ledger.facts import Facts
from ledger.hot import Ended
from ledger.settlement import Settlement

FACTS = Facts(
    account="a", api_key="k", model="asked", dialect="openai", endpoint="chat.completions", price_version=1,
    streamed=False, outcome="complete", provider="counting",
)  # fmt: skip
USAGE: dict[str, int | str] = {"input_uncached": 5, "output": 7, "service_tier": "flex"}


def ended(charge_nanos: int, *, void: bool = False, **facts: Any) -> None:
    told = {name: getattr(FACTS, name) for name in FACTS.__struct_fields__}
    settlement = Settlement("r", "00", "a", "k", "l", 0, None, 0, Facts(**{**told, "usage": USAGE, **facts}), void=void)
    count(settlement, Ended("settled", charge_nanos, 0, 1))


def value(name: str, /, **labels: str) -> float:
    tally.flush()
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_what_ended_is_counted_for_the_model_that_served() -> None:
    asked = {"dialect": "openai", "endpoint": "chat.completions", "model": "asked", "outcome": "complete"}
    before = value("weir_requests_total", **asked)
    for model in (None, None, "standin"):
        ended(30, fallback_model=model)
    assert value("weir_requests_total", **asked) - before == 3
    for model, times in (("asked", 2), ("standin", 1)):
        of = {"provider": "counting", "model": model}
        assert value("weir_charge_nanos_total", **of) == 30 * times
        assert value("weir_tokens_total", bucket="input_uncached", **of) == 5 * times
        assert value("weir_tokens_total", bucket="output", **of) == 7 * times
        assert REGISTRY.get_sample_value("weir_tokens_total", {"bucket": "service_tier", **of}) is None


def test_a_void_request_is_one_that_ended_and_no_more() -> None:
    refused = {"dialect": "openai", "endpoint": "chat.completions", "model": "void", "outcome": "refused_upstream"}
    ended(0, void=True, model="void", outcome="refused_upstream")
    assert value("weir_requests_total", **refused) == 1
    assert REGISTRY.get_sample_value("weir_charge_nanos_total", {"provider": "counting", "model": "void"}) is None


def test_a_level_goes_up_and_down_and_stays_where_it_is() -> None:
    gauge = Gauge("weir_test_level", "A level of this test.", ["name"])
    for by in (1, 1, -1):
        tally.move(gauge, "one", by=by)
    assert value("weir_test_level", name="one") == 1
    assert value("weir_test_level", name="one") == 1
    tally.move(gauge, "one", by=2)
    tally.move(gauge, "one", by=-1)
    assert value("weir_test_level", name="one") == 2


def test_how_many_requests_are_at_an_upstream() -> None:
    pools = Pools(cast("Upstreams", None))
    at = Chosen(Upstream("u", "counted", "openai", "https://example.com/v1", ""), Target("u", "m"), "sk", "m")
    seen = []
    for step in (pools.take, pools.take, pools.leave, pools.leave):
        step(at)
        seen.append(value("weir_upstream_open", upstream="counted"))
    assert seen == [1, 2, 1, 0]
