"""Entries of the usage stream, word by word: what the scripts append (`prelude_event.lua`), good and damaged."""

from typing import Any

WORDS = ("end", "seq", "epoch", "charge", "short", "hold", "spent", "at", "free", "rid")  # of `posted`


def entry(event: bytes, **words: Any) -> dict[bytes, bytes]:
    """An entry with these words; one that is None is left out."""
    whole: dict[str, Any] = {
        "end": "settled", "seq": 1, "epoch": 1, "charge": 0, "short": 0, "hold": 0, "spent": 0, "at": 0, "free": 0,
        "rid": "r", **words,
    }  # fmt: skip
    posted = (_bytes(whole[name]) for name in WORDS if whole[name] is not None)
    return {b"posted": b" ".join(posted), b"event": event}


def words(posted: str) -> dict[str, str]:
    """What `posted` says, by word."""
    return dict(zip(WORDS, posted.split(" ", 9), strict=True))


def changed(fields: dict[bytes, bytes], **changes: Any) -> dict[bytes, bytes]:
    """The entry with other words."""
    return entry(fields[b"event"], **{**words(fields[b"posted"].decode()), **changes})


def flat(fields: dict[bytes, bytes]) -> list[bytes]:
    """As XADD takes them."""
    return [word for pair in fields.items() for word in pair]


def _bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
