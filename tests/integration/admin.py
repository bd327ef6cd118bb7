"""The admin API in this process, on real stores, and a client that checks the form of every problem."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from admin_api.app import create_app
from ledger import settings
from ledger.cold import ColdBook
from ledger.link import Link
from ledger.vault import Vault
from tests.hashes import plain

TOKEN = "owner-token-of-the-tests"
PRICE = {"input_per_million_usd": "2.00", "output_per_million_usd": "8.00"}
UPSTREAM = {
    "name": "openai",
    "provider": "openai",
    "base_url": "https://api.openai.com/v1",
    "credential": "sk-canary-credential-4711",
}


class Api:
    """Calls that state the status they expect and return the JSON."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def __call__(
        self, method: str, path: str, body: Any = None, *, status: int = 200, idem: str | None = None, **query: Any
    ) -> Any:
        headers = {"idempotency-key": idem} if idem else {}
        response = await self.http.request(method, f"/v1{path}", json=body, params=query, headers=headers)
        answer = response.json()
        assert response.status_code == status, (response.status_code, answer)
        if status >= 400:
            assert_problem(response)
        return answer

    async def account(self, **fields: Any) -> str:
        made = await self("POST", "/accounts", {"name": "Acme", **fields}, status=201)
        return str(made["id"])

    async def model(self, name: str = "gpt-x", **fields: Any) -> Any:
        body = {"upstreams": [{"upstream": "openai", "model": name}], "price": PRICE, "max_output_tokens": 16_384}
        return await self("PUT", f"/models/{name}", {**body, **fields}, status=201)


def assert_problem(response: httpx2.Response) -> None:
    """RFC 9457, with a code of ours."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == response.status_code
    for error in problem.get("errors", ()):
        assert error.keys() == {"field", "message"}


@asynccontextmanager
async def serving(cold: ColdBook, redis: Link, vault: Vault, **environ: str) -> AsyncIterator[Api]:
    """The app on these stores, and a client with the owner's token."""
    app = create_app(settings.load({"WEIR_ADMIN_TOKEN": TOKEN, **environ}), cold, redis, vault)
    headers = {"authorization": f"Bearer {TOKEN}"}
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as http:
        yield Api(http)


async def hashed(redis: Link, key: str) -> dict[str, str]:
    """A Redis hash as text."""
    return plain(await redis.command("HGETALL", key))
