"""How one request ended: what it cost, and the event that records it. It holds no content, so it may be written to disk."""

import msgspec

from ledger.facts import Facts


class Settlement(msgspec.Struct, frozen=True):
    """Everything that `settle` needs, for as long as it has to be kept."""

    rid: str
    partition: str
    account: str
    key: str
    line: str
    cost_nanos: int
    tokens: int | None
    admitted_us: int
    facts: Facts
    void: bool = False
