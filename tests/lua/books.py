"""One partition on a real server: short names for what the scripts do, and a picture of every key that there is."""

import struct
from dataclasses import dataclass, replace
from typing import Any, Literal

from ledger import balances, holds, hot, keyspace, takeover
from ledger.balances import Balance
from ledger.hot import Admitted, Ended, Offer, Old, Place, Refused, Versions
from ledger.lines import InUse
from ledger.link import Arg, Link, Script
from tests import entries
from tests.hashes import HAS, close_gate, pairs, plain, put

P = "5a"
PLACE = Place(P, "acc", "key", "line")
VERSIONS = Versions(1, 1, 1)
USD = 10**9
CAP = 2**53 - 1
MINUTE = 60_000_000
FUTURE = 4_000_000_000_000_000  # microseconds: the year 2096
EXPIRES = "(expires)"  # what the picture of a hold has when its key has a time to live
HELD = ("n", "amt", "at", "used", "tokens", "lus", "aus", "day", "month", "free")
ENDED = (
    "st",
    "charge",
    "short",
    "day",
    "month",
    "free",
)  # the names of a hold's words, in the order of `prelude_form.lua`
USED = ("live", "rt", "tt", "day", "dsum", "month", "msum")  # of a line's numbers, in the order of `prelude_line.lua`

GATED = (
    "ver",
    "rpm",
    "tpm",
    "conc",
    "dcap",
    "mcap",
)  # what a gate says, in the order of `prelude_gate.lua`; then this:
UNTIL = ("exp", "free")

State = dict[str, Any]

META = keyspace.meta(P)
ACCOUNT = keyspace.account(P, "acc")
KEY = keyspace.api_key(P, "key")
LINE = keyspace.line(P, "line")
DUE = keyspace.due(P)
USAGE = keyspace.usage(P)


def hold_key(rid: str = "r1") -> str:
    return keyspace.hold(P, rid)


def ending_keys(rid: str = "r1") -> list[str]:
    return [META, ACCOUNT, LINE, hold_key(rid), DUE, USAGE]


def admit_keys(rid: str = "r1") -> list[str]:
    return [META, KEY, ACCOUNT, LINE, hold_key(rid), DUE, USAGE]


def complaint(key: str) -> str:
    """What a script says when this key holds `text`."""
    return {"hold": "EHOLD", "line": "ELINE"}.get(key.split(":")[2], "WRONGTYPE")


def changed(before: State, **changes: dict[str, Any] | list[Any] | None) -> State:
    """The state before with some fields of some keys changed; a field or a key that becomes None is gone.

    A hold that ends is replaced by what is remembered of it: if it was swept, the periods that it was admitted in, too.
    """
    after = dict(before)
    for name, change in changes.items():
        key = name.replace("__", ":")
        if change is None:
            del after[key]
        elif isinstance(change, list):
            after[key] = after.get(key, []) + change
        else:
            old = after.get(key, {})
            if change.get("st") in ("S", "X"):
                old = {n: v for n, v in old.items() if change["st"] == "X" and n in ("day", "month", "free")}
            merged = {**old, **change}
            after[key] = {field: value for field, value in merged.items() if value is not None}
    return {key: value for key, value in after.items() if value}


@dataclass
class Books:
    """The scripts on partition 5a, with an account `acc` whose key `key` has the lineage `line`."""

    link: Link
    place: Place = PLACE

    async def open(self, *, term: int = 1, epoch: int = 1, config: int = 1) -> None:
        common = {"term": term, "epoch": epoch, "config": config, "instance": "i"}
        assert await takeover.reopen(self.link, P, "take", term=term) == "OK"
        assert await takeover.reopen(self.link, P, "recover", **common) == "OK"  # type: ignore[arg-type]
        assert await takeover.reopen(self.link, P, "open", term=term) == "OK"

    async def account(self, credited: int | None = 10 * USD, *, version: int = 1, **fields: Any) -> None:
        record = {"status": "active", **{name: str(value) for name, value in fields.items()}}
        assert await hot.publish(self.link, P, keyspace.account(P, self.place.account), version, record)
        if credited is not None:
            assert await self.grant(1, credited) == "OK"

    async def key(self, *, version: int = 1, **fields: Any) -> None:
        record = {"status": "active", **{name: str(value) for name, value in fields.items()}}
        assert await hot.publish(self.link, P, keyspace.api_key(P, self.place.key), version, record)

    async def ready(self, credited: int = 10 * USD, **key_fields: Any) -> None:
        """Open, with an account and a key."""
        await self.open()
        await self.account(credited)
        await self.key(**key_fields)

    async def grant(self, number: int, credited: int) -> str:
        return await hot.grant(self.link, P, self.place.account, number=number, credited_nanos=credited)

    async def admit(
        self,
        rid: str = "r1",
        *amounts: int,
        tokens: int = 0,
        keep: int | Literal["hold"] = 0,
        versions: Versions = VERSIONS,
        lease_us: int = hot.LEASE_US,
    ) -> Admitted | Refused:
        offer = Offer(amounts or (USD,), tokens, keep, b"facts")
        return await hot.admit(self.link, self.place, rid, versions, offer, lease_us=lease_us)

    async def admitted(self, rid: str = "r1", *amounts: int, **more: Any) -> Admitted:
        reply = await self.admit(rid, *amounts, **more)
        assert isinstance(reply, Admitted), reply
        return reply

    async def settle(
        self, rid: str = "r1", cost: int = USD, *, tokens: int | None = None, void: bool = False, at: int | None = None
    ) -> Ended | Old:
        return hot.ended(
            await hot.settling(
                self.link,
                self.place,
                rid,
                cost_nanos=cost,
                event=b"event",
                admitted_us=await self.now() if at is None else at,
                tokens=tokens,
                void=void,
            )
        )

    async def progress(self, rid: str = "r1", used: int = 0, *, lease_us: int = hot.LEASE_US) -> str:
        return await hot.progress(self.link, self.place, rid, used_nanos=used, lease_us=lease_us)

    async def sweep(self, rid: str = "r1") -> Ended | None:
        return await hot.sweep(self.link, self.place, rid)

    async def make_due(self, rid: str = "r1") -> None:
        await self.link.command("ZADD", DUE, "XX", 1, rid)

    async def abandon(self, rid: str = "r1") -> Ended:
        await self.make_due(rid)
        ended = await self.sweep(rid)
        assert ended is not None
        return ended

    async def run(self, script: Script, keys: list[str], *args: Arg) -> list[str]:
        """The reply as the script gave it."""
        return [
            part.decode() if isinstance(part, bytes) else str(part) for part in await self.link.run(script, keys, args)
        ]

    async def set(self, key: str, **fields: Any) -> None:
        """As if a script had set them: in a record where they are kept in one, and with the gate that says them again."""
        if key == LINE:
            used = dict(zip(USED, InUse.read(await self.link.command("GET", key)), strict=True)) | fields
            await self.link.command("SET", key, InUse(*(int(used[name]) for name in USED)).record())
            return
        if key == ACCOUNT:
            has = {name: int(fields.pop(name)) for name in HAS if name in fields}
            await put(self.link, key, **has)
        for name, value in fields.items():
            await self.link.command("HSET", key, name, str(value))
        if key in (ACCOUNT, KEY) and fields:
            await close_gate(self.link, key)

    async def get(self, key: str, field: str) -> int:
        if key == LINE:
            return InUse.read(await self.link.command("GET", key))[USED.index(field)]
        if field in HAS:
            return Balance.read(await self.link.command("HGET", key, balances.FIELD))[HAS.index(field)]
        return int(await self.link.command("HGET", key, field))

    async def hold(self, rid: str = "r1") -> dict[str, str]:
        """What is kept of a request, by name; a dash, or -1, is nothing."""
        key = keyspace.hold(P, rid)
        value = await self.link.command("GET", key)
        if value.startswith(b"L"):
            numbers = map(int, holds.NUMBERS.unpack_from(value, 1))
            keep, *who, facts = value[1 + holds.NUMBERS.size :].decode().split(" ", 4)
            named = {"st": "L", "keep": keep, "who": " ".join(who), "facts": facts}
            named |= {name: str(number) for name, number in zip(HELD, numbers, strict=True)}
        else:
            named = dict(zip(ENDED, value.decode().split(" "), strict=False))
        if await self.link.command("PTTL", key) > 0:
            named[EXPIRES] = "yes"
        return {name: word for name, word in named.items() if word != "-" and (name, word) != ("free", "-1")}

    async def add(self, key: str, field: str, more: int) -> None:
        await self.set(key, **{field: await self.get(key, field) + more})

    async def now(self) -> int:
        seconds, micros = await self.link.command("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    def of(self, **place: str) -> "Books":
        """The same partition, seen as another account, key or lineage."""
        return replace(self, place=self.place._replace(**place))

    async def picture(self, *, events_within_us: int = MINUTE) -> State:
        """Every key of the server, as plain values. An event's time is checked and left out: it cannot be foretold."""
        found: State = {}
        now = await self.now()
        for key in sorted(await self.link.command("KEYS", "*")):
            name = key.decode().removeprefix(f"w1:{{p{P}}}:")
            kind = await self.link.command("TYPE", key)
            if kind == b"hash":
                found[name] = plain(await self.link.command("HGETALL", key))
            elif kind == b"zset":
                raw = await self.link.command("ZRANGE", key, 0, -1, "WITHSCORES")
                scores = raw if raw and isinstance(raw[0], list) else list(zip(raw[::2], raw[1::2], strict=True))
                found[name] = {member.decode(): int(float(score)) for member, score in scores}
            elif kind == b"stream":
                found[name] = [_event(fields) for _, fields in await self.link.command("XRANGE", key, "-", "+")]
                for event in found[name]:
                    assert now - events_within_us < int(event.pop("at")) <= now
            elif name.startswith("hold:"):
                found[name] = await self.hold(name.removeprefix("hold:"))
            elif name == "line:line" and kind == b"string" and await self.link.command("GET", key) != b"text":
                used = InUse.read(await self.link.command("GET", key))
                found[name] = {field: str(value) for field, value in zip(USED, used, strict=True)}
            else:
                found[name] = await self.link.command("DUMP", key)
        return found


def _event(flat: Any) -> dict[str, str]:
    """An entry of the usage stream, by short names; `free` only if it is."""
    items = _pairs(flat)
    if "posted" not in items:
        return items
    named = entries.words(items["posted"]) | {"event": items["event"]}
    return {name: value for name, value in named.items() if (name, value) != ("free", "0")}


def _pairs(flat: Any) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in pairs(flat).items()}


def admit_args(rid: str = "r1", *amounts: Any, **other: Any) -> list[Arg]:
    """The words of an admit, one of its numbers as it likes: key, account, lease, tokens, bound; config, keep, facts."""
    numbers = [other.get(name, usual) for name, usual in (("key", 1), ("account", 1), ("lease", hot.LEASE_US))]
    numbers += [other.get("tokens", 0), other.get("bound", 100), *amounts]
    words: list[Arg] = [rid, other.get("config", 1), other.get("keep", 0), "acc key line", other.get("facts", "facts")]
    return [*words, struct.pack(f"<{len(numbers)}d", *map(float, numbers))]


def settle_args(rid: str, end: str, cost: Any, admitted: Any, tokens: Any = -1) -> list[Arg]:
    """The words of a settle, its numbers as they come."""
    return [rid, end, "event", struct.pack("<3d", float(cost), float(admitted), float(tokens))]


def event(end: str, charge: int, *, seq: int = 1, spent: int | None = None, **more: Any) -> dict[str, str]:
    """The stream entry of an ended request, without its time."""
    whole = {
        "seq": seq, "epoch": 1, "end": end, "rid": "r1", "charge": charge, "short": 0, "hold": 0,
        "spent": charge if spent is None else spent, "event": "event", **more,
    }  # fmt: skip
    return {name: str(value) for name, value in whole.items()}
