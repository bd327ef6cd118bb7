"""A ticket as admission makes one, without the stores: what a request was quoted, for tests of quotes and bills."""

import time
from typing import NamedTuple

from gateway import quotes
from gateway.bill import End, settlement
from gateway.catalogues import Opened, Snapshot
from gateway.dialects.meter import Meter
from gateway.dialects.shape import Asked, Operation
from gateway.tickets import Ticket
from gateway.upstream.quota import Tokens
from ledger.catalogue import Catalogue, Model, Upstream
from ledger.facts import Facts
from ledger.hot import Admitted, Place
from ledger.policy import AccountPolicy, KeyPolicy
from ledger.price_record import Price
from ledger.settlement import Settlement

PLACE = Place("p00", "a", "k", "l")
UPSTREAM = Upstream("u", "u", "openai", "https://example.com/v1", "")
OPENED = Opened(Catalogue(1, {}, {}, {}), {}, {})


class Priced(NamedTuple):
    """A model with this price, for an account with this markup."""

    price: Price
    markup_ppm: int = 1_000_000
    max_input_tokens: int = 200_000
    max_output_tokens: int = 100_000

    @property
    def model(self) -> Model:
        return Model("m", (), self.price, self.max_output_tokens, self.max_input_tokens)


def ticket(priced: Priced, endpoint: Operation, asked: Asked, body: bytes, *, choice: int = 0) -> Ticket:
    """What admission hands out for a request; `choice`: which of the caps that are offered was taken."""
    model = priced.model
    quote = quotes.quote(model, asked, len(body), priced.markup_ppm)
    policy = AccountPolicy(markup_ppm=priced.markup_ppm)
    snapshot = Snapshot(PLACE, 1, 1, "", "", KeyPolicy(), policy, (), (None, None), "active", 0, "active")
    facts = Facts(
        account="a",
        api_key="k",
        model="m",
        dialect="d",
        endpoint=endpoint.name,
        price_version=1,
        streamed=asked.streamed,
    )
    amount, cap = quote.amounts[choice], quote.caps[choice]
    return Ticket(
        rid="0" * 32,
        place=PLACE,
        model=model,
        standins=(),
        opened=OPENED,
        snapshot=snapshot,
        admitted=Admitted(choice, 0 if endpoint.free else amount, 1, 0, 0, 0, 0),
        set_cap=cap if quotes.must_say(model, asked, cap) and not endpoint.free else None,
        input_estimate=quotes.estimate(body, asked),
        most_output=cap * asked.choices,
        tokens=Tokens(quotes.estimate(body, asked), quote.likely_output),
        facts=facts,
        costs_nothing=endpoint.free,
    )


def bill(admitted: Ticket, meter: Meter, *, bytes_out: int) -> Settlement:
    """What an answer with status 200 that was relayed to its end comes to (gateway/relay.py)."""
    now = time.perf_counter()
    end = End(
        outcome="complete" if meter.done else "upstream_broke",
        status=200,
        usage=meter.usage(),
        whole=meter.done,
        estimate=meter.estimate(),
        seen=meter.output_seen(),
        answered=True,
        served_model=meter.model,
        began=now,
        first_byte=now,
        bytes_out=bytes_out,
    )
    return settlement(admitted, UPSTREAM, end)
