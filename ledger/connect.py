"""The way to Redis, whatever its shape: one server, the primary that Sentinel names, or a cluster."""

from ledger.cluster import SCHEME, ClusterLink
from ledger.link import Link


def connect(url: str, *, deadline_s: float = 2.0, name: str = "weir") -> Link | ClusterLink:
    """A link for this URL; use it as `async with`."""
    if url.startswith(f"{SCHEME}://"):
        return ClusterLink(url, deadline_s=deadline_s, name=name)
    return Link(url, deadline_s=deadline_s, name=name)
