"""Very many API keys, put into both books at once instead of through the admin API one by one.

They are what the admin API would have written, to the field: the same digest, the same document, the same record in
Redis. The bench's audit, and every request that one of them pays, would show a difference.
"""

import itertools
import socket
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pymongo

from bench.contestants.weir import new_account
from bench.load.closed import Keys
from bench.machine import CannotRunError
from bench.stack import Stack
from ledger import catalogue, keys, keyspace, publish, scripts
from ledger.cold import now
from ledger.vault import Vault, parse_master_key

_AT_A_TIME = 10_000
_MOST_ACCOUNTS = 64  # on so many partitions the ledger reads full batches, and they are quickly made


def make(stack: Stack, count: int, file: Path) -> Keys:
    """`count` keys of 64 accounts, or of one each; their texts are in `file`, one a line."""
    accounts = [new_account(stack, f"many-{n}") for n in range(min(count, _MOST_ACCOUNTS))]
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(stack.stores["mongo"])
    books = client.get_default_database()
    pepper_name, pepper = _pepper(stack, books)
    partitions = {d["_id"]: d["partition"] for d in books.accounts.find({}, {"partition": 1})}
    drawn = ((account, partitions[account]) for account in itertools.islice(itertools.cycle(accounts), count))
    with client, _Redis(stack.stores["redis"]) as redis, file.open("w") as texts:
        while some := list(itertools.islice(drawn, _AT_A_TIME)):
            made = [(keys.mint(partition), account, partition) for account, partition in some]
            documents = [
                _document(text, key_id, account, partition, pepper_name, pepper)
                for (text, key_id), account, partition in made
            ]
            books.api_keys.insert_many(documents, ordered=False)
            redis.write(documents)
            texts.writelines(f"{text}\n" for (text, _), _, _ in made)
    return Keys(file, count)


def _pepper(stack: Stack, books: Any) -> tuple[str, bytes]:
    vault = Vault(parse_master_key((stack.data / "master.key").read_text().strip()))
    newest = books.peppers.find_one(sort=[("number", -1)])
    name = str(newest["_id"])
    return name, vault.open(newest["sealed"], purpose=catalogue.pepper_purpose(name))


def _document(text: str, key_id: str, account: str, partition: str, pepper_name: str, pepper: bytes) -> dict[str, Any]:
    return {
        "_id": key_id,
        "account": account,
        "partition": partition,
        "line": key_id,
        "name": "many",
        "policy": {},
        "limits": {},
        "expires_us": None,
        "digest": keys.digest(pepper, text.encode()),
        "pepper": pepper_name,
        "status": "active",
        "version": 1,
        "dirty": False,
        "created_at": now(),
    }


class _Redis:
    """Puts keys in force by the thousand: commands in one piece, replies counted."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=30)
        self._ask([[b"SCRIPT", b"LOAD", scripts.PUBLISH.text]], lines=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, documents: list[dict[str, Any]]) -> None:
        for start in range(0, len(documents), 1_000):
            some = documents[start : start + 1_000]
            replies = self._ask([_publish(document) for document in some], lines=3)
            if replies != _IN_FORCE * len(some):
                raise CannotRunError(f"keys were not put in force: {replies[:200]!r}")

    def _ask(self, commands: list[list[bytes]], *, lines: int) -> bytes:
        """The replies, of so many lines each."""
        self._socket.sendall(b"".join(map(_packed, commands)))
        replies = b""
        while replies.count(b"\n") < lines * len(commands):
            replies += self._socket.recv(65536)
        return replies


_IN_FORCE = b"*1\r\n$2\r\nOK\r\n"


def _publish(document: dict[str, Any]) -> list[bytes]:
    """What `hot.publish` sends."""
    partition = document["partition"]
    where = (keyspace.meta(partition), keyspace.api_key(partition, document["_id"]))
    fields = itertools.chain.from_iterable(publish.key_fields(document).items())
    return [b"EVALSHA", scripts.PUBLISH.sha, b"2", *(word.encode() for word in (*where, "ver", "1", *fields))]


def _packed(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])
