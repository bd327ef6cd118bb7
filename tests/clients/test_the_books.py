"""After everything that the SDKs did here, the books agree."""

from tests.stack import Stack


async def test_the_books_balance(stack: Stack) -> None:
    report = stack.audit()
    assert report["agrees"]
    assert report["held_nanos"] == 0
