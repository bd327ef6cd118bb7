"""The hashes of accounts and keys as tests read them and spoil them: with what they keep as records of numbers, by name."""

import struct
from typing import Any

from ledger import balances
from ledger.balances import Balance
from ledger.link import Link

HAS = ("avail", "held", "live", "rt", "tt")  # of an account's balance, in the order of `prelude_balance.lua`
# What a gate says, in the order of `prelude_gate.lua`; its last number is one of `_UNTIL`.
_GATED = ("ver", "rpm", "tpm", "conc", "dcap", "mcap")
_UNTIL = ("exp", "free")


def pairs(flat: Any) -> dict[bytes, bytes]:
    """The fields of a hash or of a stream's entry, in whichever form the client gives them."""
    return dict(flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True))


def plain(flat: Any) -> dict[str, str]:
    """A hash as text: what an account has by its names, and no gate: that says what the fields say, which is checked."""
    items = pairs(flat)
    has, closed = items.pop(b"balance", None), items.pop(b"gate", None)
    fields = {name.decode(): value.decode() for name, value in items.items()}
    assert closed == (gate(fields) if "ver" in fields else None)
    return fields | ({} if has is None else dict(zip(HAS, map(str, Balance.read(has)), strict=True)))


def gate(fields: dict[str, str]) -> bytes:
    """The gate of a hash with these fields."""
    until = next((fields[name] for name in _UNTIL if name in fields), -1)
    numbers = (*(int(fields.get(name, -1)) for name in _GATED), int(until))
    return struct.pack("<7d", *numbers) + fields.get("status", "").encode()


async def close_gate(link: Link, key: str) -> None:
    """Let the gate of a hash say what its fields say by now. `key` is the hash's key."""
    items = pairs(await link.command("HGETALL", key))
    fields = {name.decode(): value.decode() for name, value in items.items() if name not in (b"balance", b"gate")}
    await link.command("HSET", key, "gate", gate(fields))


async def put(link: Link, account: str, **has: int) -> None:
    """Change some numbers of an account's balance. `account` is the hash's key."""
    numbers = dict(zip(HAS, Balance.read(await link.command("HGET", account, balances.FIELD)), strict=True)) | has
    record = Balance(*(int(numbers[name]) for name in HAS)).record()
    await link.command("HSET", account, balances.FIELD, record)


async def plant(link: Link, account: str, field: str, by: int) -> None:
    """Add so much to what an account's hash says, wherever it says it."""
    if field not in HAS:
        await link.command("HINCRBY", account, field, by)
        return
    has = Balance.read(await link.command("HGET", account, balances.FIELD))
    await put(link, account, **{field: has[HAS.index(field)] + by})
