"""A name that leads into the operator's own network is not connected to, whatever the admin API was told (SSRF)."""

import ipaddress
import ssl
from typing import Any

import httpx2
import pytest

from bench.provider import ScriptedProvider
from gateway.dialects.openai.dialect import OpenAI
from gateway.refusals import Refusal
from gateway.upstream.client import Chosen, make_sender
from gateway.upstream.socket import open_socket
from ledger.addresses import is_public
from ledger.catalogue import Target, Upstream

NAMES = ["127.0.0.1", "localhost"]


@pytest.mark.parametrize("kind", ["fast", "httpx2"])
@pytest.mark.parametrize("host", NAMES)
async def test_requests(kind: str, host: str) -> None:
    async with ScriptedProvider() as provider:
        url = provider.url.replace("127.0.0.1", host) + "/v1/chat/completions"
        body = b'{"model":"m","messages":[]}'
        for public_only in (True, False):
            sender = make_sender(kind, ssl.create_default_context(), public_only=public_only)
            try:
                if public_only:
                    with pytest.raises(httpx2.ConnectError):
                        await sender.post(url, [(b"content-type", b"application/json")], body)
                    assert provider.stats.requests == 0
                else:
                    answer = await sender.post(url, [(b"authorization", b"Bearer k")], body)
                    assert answer.status == 200
                    answer.drop()
            finally:
                await sender.aclose()


@pytest.mark.parametrize("host", NAMES)
async def test_sessions(host: str) -> None:
    async with ScriptedProvider() as provider:
        upstream = Upstream("u", "u", "openai", provider.url.replace("127.0.0.1", host), "sealed")
        chosen = Chosen(upstream, Target("u", "m"), "k")
        context: Any = ssl.create_default_context()
        with pytest.raises(Refusal) as refused:
            await open_socket(context, chosen, OpenAI(), "/realtime?model=m", [], public_only=True)
        assert refused.value.code.status == 503
        assert provider.stats.requests == 0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fe80::1", False),
        ("fd00::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public
