"""The catalogue in force, with its secrets opened in memory, and API keys' snapshots. Redis is the only source.

A snapshot may only lead to admit, which checks its versions; so what is remembered here is never trusted with a decision
(design.md section 4, step 4). Nothing negative is remembered.
"""

import hmac
from collections import OrderedDict
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from ledger import catalogue, common_metrics, hot, keyspace, policy
from ledger.catalogue import Catalogue, Upstream
from ledger.hot import Place, Seen, Versions
from ledger.keys import Digester, KeyId
from ledger.link import Caller
from ledger.vault import Vault

_SNAPSHOTS = 100_000


class Opened(NamedTuple):
    """A catalogue, with credentials in the clear and peppers set to work; never logged, never written."""

    book: Catalogue
    credentials: dict[str, str]
    digesters: dict[str, Digester]


class Snapshot(NamedTuple):
    """What is known of an API key and its account, and of which versions."""

    place: Place
    key_version: int
    account_version: int
    digest: str
    pepper: str
    key_policy: policy.KeyPolicy
    account_policy: policy.AccountPolicy
    networks: tuple[object, ...]
    limits: tuple[int | None, int | None]
    status: str
    expires_us: int
    account_status: str

    def allows_address(self, address: str) -> bool:
        try:
            client = ip_address(address)
        except ValueError:
            return False
        return any(client in network for network in self.networks)  # type: ignore[operator]


class Catalogues:
    """Holds the newest catalogue this worker has seen."""

    def __init__(self, redis: Caller, vault: Vault) -> None:
        self._redis = redis
        self._vault = vault
        self.now: Opened | None = None

    async def refresh(self, partition: str) -> Opened | None:
        """Load the version that the partition asks for, if it is newer than ours."""
        raw: bytes | None = await self._redis.command("HGET", keyspace.meta(partition), "config")
        return await self.load(int(raw or 0))

    async def load(self, version: int) -> Opened | None:
        """Load this version, if it is newer than ours."""
        if version and (self.now is None or version > self.now.book.version):
            text: bytes | None = await self._redis.command("GET", keyspace.config(version))
            if text is not None:
                self.now = self._open(catalogue.decode(text))
                common_metrics.CONFIG_VERSION.set(version)
        return self.now

    def _open(self, book: Catalogue) -> Opened:
        credentials = {u.id: self._credential(u) for u in book.upstreams.values()}
        digesters = {
            version: Digester(self._vault.open(sealed, purpose=catalogue.pepper_purpose(version)))
            for version, sealed in book.peppers.items()
        }
        return Opened(book, credentials, digesters)

    def _credential(self, upstream: Upstream) -> str:
        purpose = catalogue.credential_purpose(upstream.id)
        return self._vault.open(upstream.credential, purpose=purpose).decode()


class Snapshots:
    """API keys as Redis has them, the most recently used ones in memory."""

    def __init__(self, redis: Caller, *, most: int = _SNAPSHOTS) -> None:
        self._redis = redis
        self._most = most
        self._known: OrderedDict[str, Snapshot] = OrderedDict()

    def known(self, key: KeyId) -> Snapshot | None:
        found = self._known.get(key.id)
        if found is not None:
            self._known.move_to_end(key.id)
        return found

    async def fetch(self, key: KeyId) -> Snapshot | None:
        """Read the key and its account anew; None if there is no such key."""
        return self.remember(key, await hot.look(self._redis, key.partition, key.id))

    def remember(self, key: KeyId, seen: Seen) -> Snapshot | None:
        """Make a snapshot of what was seen; None if there is no such key."""
        digest, pepper, account, line, version, key_policy, rpm, tpm, status, expires = seen.key
        account_version, account_policy, account_status = seen.account
        if not (digest and pepper and account and line and version and key_policy):
            self._known.pop(key.id, None)
            return None
        if not account_version or not account_policy:
            return None
        place = Place(key.partition, account.decode(), key.id, line.decode())
        allowed = policy.key_policy(key_policy)
        snapshot = Snapshot(
            place=place,
            key_version=int(version),
            account_version=int(account_version),
            digest=digest.decode(),
            pepper=pepper.decode(),
            key_policy=allowed,
            account_policy=policy.account_policy(account_policy),
            networks=tuple(ip_network(network, strict=False) for network in allowed.networks),
            limits=(int(rpm) if rpm else None, int(tpm) if tpm else None),
            status=(status or b"").decode(),
            expires_us=int(expires or 0),
            account_status=(account_status or b"").decode(),
        )
        self._known[key.id] = snapshot
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return snapshot


def opens(snapshot: Snapshot, secret: bytes, opened: Opened) -> bool:
    """Whether this key is the one of which the snapshot's digest was kept."""
    digest = opened.digesters.get(snapshot.pepper)
    return digest is not None and hmac.compare_digest(digest(secret), snapshot.digest)


def versions(snapshot: Snapshot, opened: Opened) -> Versions:
    return Versions(snapshot.key_version, snapshot.account_version, opened.book.version)
