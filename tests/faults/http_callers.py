"""Callers of the gateway and of the admin API who keep what they were told; a few lines of HTTP, because they are fast."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

from tests.faults.site import Running, ask_body, grant_body, idempotency_key

INPUT_NANOS, OUTPUT_NANOS = 2_500, 10_000  # a token, at tests.stack.PRICE
LONGEST_S = 20.0


class Connection:
    """One keep-alive connection, made anew when it breaks."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; OSError when there was no whole answer."""
        lines = [f"POST {path} HTTP/1.1", f"host: {self._host}", f"content-length: {len(body)}"]
        lines += ["content-type: application/json", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        try:
            async with asyncio.timeout(LONGEST_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write(request)
                status, found = _head(await reader.readuntil(b"\r\n\r\n"))
                return status, found, await reader.readexactly(int(found["content-length"]))
        except (OSError, asyncio.IncompleteReadError, TimeoutError, KeyError) as error:
            self.close()
            raise ConnectionError(type(error).__name__) from None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = raw.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value for name, _, value in pairs}


class _Callers:
    """So many loops at once, as long as the block."""

    def __init__(self, random: Random, count: int) -> None:
        self.random = random
        self.unanswered = 0
        self.statuses: Counter[int] = Counter()
        self.seconds = 0.0
        self.count = count
        self._stopping = False
        self._good = asyncio.Event()
        self._asked = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        callers = [asyncio.create_task(self._loop()) for _ in range(self.count)]
        try:
            yield
        finally:
            self._stopping = True
            done, late = await asyncio.wait(callers, timeout=60)
            self.seconds += loop.time() - began
            for caller in late:
                caller.cancel()
        for caller in done:
            caller.result()
        assert not late, "requests were not answered within 60 s"

    async def _loop(self) -> None:
        raise NotImplementedError

    async def post(self, line: Connection, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
        """The answer; status 0 when there was none."""
        self.unanswered += 1
        try:
            status, found, text = await line.post(path, body, **headers)
        except OSError:
            status, found, text = 0, {}, b""
        finally:
            self.unanswered -= 1
        self.statuses[status] += 1
        return status, found, text

    async def serves(self, *, within_s: float = 30) -> None:
        """Until a request is answered as it should be."""
        self._asked += 1
        self._good.clear()
        await asyncio.wait_for(self._good.wait(), within_s)

    def good(self, asked: int) -> None:
        """A request that began when `asked` was the question has been answered as it should be."""
        if asked == self._asked:
            self._good.set()

    async def waits(self) -> bool:
        for _ in range(500):
            if self.unanswered:
                return True
            await asyncio.sleep(0.001)
        return False


class Callers(_Callers):
    """Callers of the model. `paid` is what each whole answer cost by the provider's own usage."""

    def __init__(self, here: Running, random: Random, *, count: int = 24) -> None:
        super().__init__(random, count)
        self._here = here
        self.paid: dict[str, int] = {}

    @property
    def requests_per_s(self) -> float:
        return round(len(self.paid) / max(self.seconds, 0.001), 1)

    async def _loop(self) -> None:
        line = Connection(*self._here.host)
        while not self._stopping:
            body = ask_body(self._here.model, self.random.randint(1, 60))
            key, asked = f"Bearer {self._here.customer.key}", self._asked
            status, headers, text = await self.post(line, "/openai/v1/chat/completions", body, authorization=key)
            if status == 200:
                usage = json.loads(text)["usage"]
                cost = usage["prompt_tokens"] * INPUT_NANOS + usage["completion_tokens"] * OUTPUT_NANOS
                self.paid[headers["x-weir-request-id"]] = cost
                self.good(asked)
            else:
                await asyncio.sleep(0.02)
        line.close()


class Operators(_Callers):
    """Operators who grant, and say the same again with the same Idempotency-Key until the answer is yes."""

    def __init__(self, here: Running, random: Random, *, count: int = 3) -> None:
        super().__init__(random, count)
        self._here = here
        self.granted_nanos = 0
        self.grants = 0

    async def _loop(self) -> None:
        host, port = self._here.site.admin.removeprefix("http://").split(":")
        line = Connection(host, int(port))
        path = f"/v1/accounts/{self._here.customer.id}/grants"
        while not self._stopping:
            cents, key = self.random.randint(1, 999), idempotency_key()
            body, bearer = grant_body(cents), f"Bearer {self._here.site.token}"
            while True:
                asked = self._asked
                status, _, _ = await self.post(line, path, body, authorization=bearer, idempotency_key=key)
                if status in (200, 201, 202):
                    break
                assert status in (0, 409, 500, 503), status
                await asyncio.sleep(0.02)
            self.granted_nanos += cents * 10**7
            self.grants += 1
            self.good(asked)
            await asyncio.sleep(0.02)
        line.close()
