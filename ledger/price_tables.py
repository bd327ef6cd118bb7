"""A price worked out once, so that a bill is a sum and a quote a look-up: what each bucket costs, and the dearest of each.

A sheet is one complete set of rates; a table is the sheets of one way to be served, by input length; the tables of a
price are its base and its variants. Amounts here are whole ticks, 1/3,600 of a pico-USD, so that seconds divide exactly.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

HOUR_S: Final = 3_600
CACHE_WRITES: Final = ("cache_write_5m", "cache_write_1h", "cache_write_30m", "cache_write_12h")
WRITES: Final = ("cache_write", *CACHE_WRITES)
RATES: Final = (
    "input", "output", "cached_input", *WRITES,
    "input_audio", "output_audio", "input_image", "output_image",
    "tool_image_input", "tool_image_output", "request", "second", "web_search",
)  # fmt: skip
"""Pico-USD per token; `request` and `web_search`: each; `second`: per 3,600 seconds."""

INPUT_BUCKETS: Final = ("input_uncached", "cache_read", *WRITES)
_PARTS: Final = (("input_uncached", "input"), ("output", "output"))
_KINDS: Final = ("audio", "image")
_MOST_KEPT: Final = 64

Rates = Mapping[str, int]
Steps = Iterable[tuple[int, Rates]]
"""(above how many input tokens, the rates there), in any order."""


class Dearest(NamedTuple):
    """The dearest that one unit of each bounded quantity can cost, as rates."""

    input: int
    output: int
    request: int
    second: int
    web_search: int
    tool_image_input: int
    tool_image_output: int


class Sheet:
    """One complete set of rates. What has no rate of its own costs the dearest of its kind: never free by accident."""

    def __init__(self, rates: Rates) -> None:
        dearest_input = max(picos for name, picos in rates.items() if name.startswith(("input", "cache")))
        dearest_output = max(picos for name, picos in rates.items() if name.startswith("output"))
        write = max((rates[name] for name in WRITES if name in rates), default=rates["input"])
        self._request = rates.get("request", 0) * HOUR_S
        self.dearest = Dearest(
            dearest_input,
            dearest_output,
            rates.get("request", 0),
            rates.get("second", 0),
            rates.get("web_search", 0),
            rates.get("tool_image_input", dearest_input),
            rates.get("tool_image_output", dearest_output),
        )
        each = {
            "input_uncached": rates["input"],
            "cache_read": rates.get("cached_input", rates["input"]),
            **{name: rates.get(name, write) for name in WRITES},
            "output": rates["output"],
            "web_searches": self.dearest.web_search,
            "tool_image_input": self.dearest.tool_image_input,
            "tool_image_output": self.dearest.tool_image_output,
        }
        self._each = {bucket: picos * HOUR_S for bucket, picos in each.items()}
        self._each["audio_seconds"] = self.dearest.second
        self._parts = tuple(
            (bucket, tuple(own)) for bucket, parent in _PARTS if (own := list(_own_rates(rates, parent)))
        )

    def ticks(self, usage: Mapping[str, Any]) -> int:
        """What this usage costs by this sheet."""
        each = self._each
        total: int = self._request * max(1, usage.get("requests", 1))
        for bucket, quantity in usage.items():
            if bucket in each:
                total += quantity * each[bucket]
        for parent, own in self._parts:
            left = usage.get(parent, 0)
            for part, more in own:
                taken = min(usage.get(part, 0), left)
                left -= taken
                total += taken * more
        return total


def _own_rates(rates: Rates, parent: str) -> Iterator[tuple[str, int]]:
    """(part, ticks by which its rate differs from its parent's): tokens with a rate of their own leave the parent's."""
    for kind in _KINDS:
        name = f"{parent}_{kind}"
        if name in rates:
            yield name, (rates[name] - rates[parent]) * HOUR_S


class Table:
    """The sheets of one way to be served, the one for the longest input first."""

    def __init__(self, rates: Rates, tiers: Steps) -> None:
        steps = [(-1, Sheet(rates)), *((above, Sheet(more)) for above, more in tiers)]
        self.steps = sorted(steps, key=lambda step: -step[0])

    def ticks(self, usage: Mapping[str, Any]) -> int:
        """What this usage costs: strictly above a threshold of input tokens, all of it is at that tier's rates."""
        steps = self.steps
        if len(steps) == 1:
            return steps[0][1].ticks(usage)
        tokens = sum([usage.get(bucket, 0) for bucket in INPUT_BUCKETS])
        return next(sheet for above, sheet in steps if tokens > above).ticks(usage)


class Tables:
    """All tables of a price."""

    def __init__(self, base: Table, variants: Mapping[str, Table]) -> None:
        self._base = base
        self._variants = variants
        self._parts = {name: _parts((name,)) for name in variants}
        self._ceilings: dict[tuple[str, ...] | None, list[tuple[int, Dearest]]] = {
            None: _ceiling([base, *variants.values()])
        }

    def ticks(self, usage: Mapping[str, Any], served: frozenset[str]) -> int:
        """What this usage costs, served by the variants of these names; at base if there are none."""
        if not served or not self._variants:
            return self._base.ticks(usage)
        return max(table.ticks(usage) for table in self._that_served(served))

    def _that_served(self, served: frozenset[str]) -> Iterable[Table]:
        """The table of all the names together, else theirs; a name that is not known may mean any table (wire.md 7)."""
        parts = _parts(served)
        joint = "+".join(sorted(parts))
        if joint in self._variants:
            return (self._variants[joint],)
        if not served <= self._variants.keys():
            return (self._base, *self._variants.values())
        return self._made_of(parts)

    def _made_of(self, parts: frozenset[str]) -> list[Table]:
        return [table for name, table in self._variants.items() if self._parts[name] <= parts]

    def dearest(self, variants: tuple[str, ...] | None, input_tokens: int) -> Dearest:
        """The dearest of each rate in all that so many input tokens and these variants can lead to; None: any."""
        ceiling = self._ceilings.get(variants)
        if ceiling is None:
            ceiling = self._make_ceiling(variants or ())
        for above, dearest in ceiling:
            if input_tokens > above:
                return dearest
        return ceiling[-1][1]

    def _make_ceiling(self, variants: tuple[str, ...]) -> list[tuple[int, Dearest]]:
        if not frozenset(variants) <= self._variants.keys():
            return self._ceilings[None]
        made = _ceiling([self._base, *self._made_of(_parts(variants))])
        if len(self._ceilings) < _MOST_KEPT:  # callers choose the order, so this is not bounded by what is known
            self._ceilings[variants] = made
        return made


def _parts(names: Iterable[str]) -> frozenset[str]:
    """The single names in them: `fast+us` is `fast` and `us` at once."""
    return frozenset([part for name in names for part in name.split("+")])


def _ceiling(tables: list[Table]) -> list[tuple[int, Dearest]]:
    """For each threshold, the longest first: the dearest of every sheet that more tokens than it can reach."""
    steps = sorted((step for table in tables for step in table.steps), key=lambda step: step[0])
    reached: dict[int, Dearest] = {}
    dearest = steps[0][1].dearest
    for above, sheet in steps:
        dearest = Dearest(*map(max, dearest, sheet.dearest))
        reached[above] = dearest
    return list(reversed(reached.items()))
