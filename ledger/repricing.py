"""An event, priced again: the charge that its usage and the price version that it pins come to."""

from collections.abc import Mapping, Sequence
from typing import Any

from ledger.cold import ColdBook, Document
from ledger.money import Nanos
from ledger.price_documents import price_of
from ledger.price_record import Price
from ledger.prices import PPM, cost_nanos


def cost_of(event: Mapping[str, Any], price: Price) -> Nanos:
    """What an ended request's event costs. The plan's markup is in the event, the model's in the price."""
    if event["end"] == "voided" or event.get("free"):
        return Nanos(0)
    return cost_nanos(price, event["usage"], markup_ppm=event.get("markup_ppm", PPM))


async def owed(cold: ColdBook, events: Sequence[Document]) -> Nanos:
    """What the events of one request have to add up to, charge and shortfall together.

    An `abandoned` one has no usage: its charge is what the gateway had reported last, or what the plan keeps. A `late` one
    has the usage of the whole request and charges what is still missing, so together they come to the dearer of the two.
    """
    reported = sum(e["charge_nanos"] + e["shortfall_nanos"] for e in events if e["end"] == "abandoned")
    told = [event for event in events if event["end"] != "abandoned"]
    costs = [cost_of(event, await _pinned(cold, event)) for event in told]
    return Nanos(int(max([*costs, reported])))


async def _pinned(cold: ColdBook, event: Document) -> Price:
    version = event["price_version"]
    document = await cold.prices.find_one({"_id": version})
    if document is None:
        raise LookupError(f"there is no price version {version}")
    return price_of(document, version=version)
