"""What the tests of the books share."""

from collections.abc import AsyncIterator

import pytest

from ledger.cold import ColdBook
from ledger.connections import client
from ledger.link import Link
from tests.integration.ledger_books import Ledger


@pytest.fixture
async def ledger(cold: ColdBook, opened: Link, redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    """Both books with one customer, who has CREDITED nano-dollars of the test's module, or 1,000."""
    reader = client(redis_url)
    books = Ledger(cold, opened, reader)
    await books.customer(getattr(request.module, "CREDITED", 1_000))
    yield books
    await reader.aclose()
