"""Where upstreams lie: how their URLs are made, and which addresses are public.

A name that leads to an address which is not public is not connected to, unless the operator allows it
(WEIR_ALLOW_PRIVATE_UPSTREAMS): an upstream must not be a way into the operator's own network.
"""

import asyncio
import ipaddress
import re
import socket
from urllib.parse import urlsplit

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_VERSION = re.compile(r"/v1(?:alpha|beta)?$")
_ORIGIN_SLASHES = 2  # https://host
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: Ip) -> bool:
    """Public itself, and whatever IPv4 address is wrapped in it."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


def upstream_url(provider: str, base_url: str, path: str) -> str:
    """Where a path of a provider lies. OpenAI's base URLs end in their version and the others' do not, as their SDKs have
    it; whoever wrote the version where it does not belong meant the same.
    """
    base = base_url.rstrip("/")
    if provider in ("anthropic", "gemini"):
        base = _VERSION.sub("", base)
    elif provider in ("openai", "xai") and base.count("/") == _ORIGIN_SLASHES:
        base += "/v1"
    return base + path


async def checked(url: str) -> str:
    """An address of a URL's host, of which every address is public; ConnectionError otherwise, OSError if it has none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(address[0]).partition("%")[0] for *_, address in found]
    if not addresses or not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise ConnectionError("the address is not public")
    return addresses[0]
