"""Where an upstream may lie. Pure: no name is looked up; the gateway checks what a name leads to when it connects."""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from ledger.addresses import Ip, is_public

_VISIBLE = re.compile(r"[!-\[\]-~]+\Z")  # printable ASCII without space and backslash
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z", re.IGNORECASE)
_HOME = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".localdomain")


def base_url(text: str, *, private: bool) -> str:
    """The URL without a trailing slash; ValueError, which does not repeat it, says why it cannot be used.

    `private` (WEIR_ALLOW_PRIVATE_UPSTREAMS) also allows http and addresses that are not public.
    """
    if len(text) > 500 or not _VISIBLE.match(text):
        raise ValueError("must be a URL of at most 500 ASCII characters, without spaces or backslashes")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in (("https", "http") if private else ("https",)):
        raise ValueError("must begin with https://" + (" or http://" if private else _OR_ALLOW))
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password; the credential has a field of its own")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must not have a query or a fragment")
    _check_host(host.rstrip("."), private=private)
    return text.rstrip("/")


_OR_ALLOW = " (http and private addresses need WEIR_ALLOW_PRIVATE_UPSTREAMS=on)"


def _check_host(host: str, *, private: bool) -> None:
    address = _literal(host)
    if address is None and not all(_LABEL.match(label) for label in host.split(".")):
        raise ValueError("needs a host name")
    if private:
        return
    if address is not None and not is_public(address):
        raise ValueError("names a private, loopback, link-local or otherwise special address" + _OR_ALLOW)
    if address is None and ("." not in host or host.lower().endswith(_HOME)):
        raise ValueError("names a host that is not public" + _OR_ALLOW)


def _literal(host: str) -> Ip | None:
    """The address that a resolver would take this text for: `127.1`, `0x7f000001` and `2130706433` are loopback too."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None
