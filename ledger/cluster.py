"""Redis Cluster: one Link a node, calls routed by the slot of their key (cluster-spec; design.md section 5).

Every script touches one slot, so a call goes to one node. What a node answers when a slot is elsewhere (MOVED, ASK) or
on its way (TRYAGAIN, CLUSTERDOWN) means that nothing ran: the call goes again, within its deadline. A node that does not
answer is another matter: then nobody knows, and the caller gets StoreUnavailable like everywhere else.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from ledger.link import Arg, Link, Script, StoreUnavailable

SCHEME = "redis+cluster"
_AGAIN_S = 0.02
_NOT_LOCAL = "non local key in a cluster node"
_REFRESH_AT_MOST_EVERY_S = 0.2
Node = tuple[str, int]
Send = Callable[[Link], asyncio.Future[Any]]


class ClusterLink:
    """The same calls as Link's, over all primaries of a cluster."""

    def __init__(self, url: str, *, deadline_s: float = 2.0, name: str = "weir") -> None:
        parts = urlsplit(url)
        self._url = parts._replace(scheme="redis")
        self._seeds = [_node(host) for host in parts.netloc.rpartition("@")[2].split(",")]
        self._deadline_s = deadline_s
        self._name = name
        self._links: dict[Node, Link] = {}
        self._owner: list[Node | None] = [None] * 16384
        self._refreshing: asyncio.Task[None] | None = None
        self._known = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._refresh_soon()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._tasks, *([self._refreshing] if self._refreshing else [])):
            task.cancel()
        await self._stack.aclose()

    def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, patient: bool = False
    ) -> asyncio.Future[Any]:
        """Run a script on the node that owns its keys."""
        arguments = (len(keys), *keys, *args)
        # Behind ASKING a script goes by its text: NOSCRIPT would need a second ASKING.
        by_text = ("EVAL", script.text, *arguments)
        return self._route(keys[0], lambda link: link.run(script, keys, args, patient=patient), by_text)

    def command(self, *words: Arg, key: str | None = None) -> asyncio.Future[Any]:
        """Any other command, at the owner of `key` (its first argument unless given)."""
        where = key if key is not None else str(words[1]) if len(words) > 1 else ""
        return self._route(where, lambda link: link.command(*words), words)

    def transaction(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """MULTI ... EXEC at the owner of `key`; the future has EXEC's answer."""
        return self._route(key, lambda link: link.transaction(key, *commands), None)

    def together(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Commands in this order on one connection to the key's owner. Not rerouted: an error is the caller's."""
        node = self._owner[_slot(_tag(key))]
        if node is None:
            self._refresh_soon()
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("the cluster is not known yet"))
            return failed
        answers = self._link(node).together(key, *commands)
        answers.add_done_callback(self._learn)
        return answers

    def _learn(self, answers: asyncio.Future[Any]) -> None:
        """A call that was not rerouted went wrong: look again who owns what, for the next one."""
        if not answers.cancelled() and answers.exception() is not None:
            self._refresh_soon()

    def server_of(self, key: str) -> object:
        """The node that has this key, as far as is known; None before the cluster was asked."""
        return self._owner[_slot(_tag(key))]

    def _route(self, key: str, send: Send, asked: tuple[Any, ...] | None) -> asyncio.Future[Any]:
        outer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        slot = _slot(_tag(key))
        node = self._owner[slot]
        if node is None:
            self._spawn(self._retry(outer, slot, send, asked))
            return outer
        inner = send(self._link(node))
        inner.add_done_callback(lambda done: self._answered(done, outer, slot, send, asked))
        return outer

    def _answered(
        self,
        inner: asyncio.Future[Any],
        outer: asyncio.Future[Any],
        slot: int,
        send: Send,
        asked: tuple[Any, ...] | None,
    ) -> None:
        error = None if inner.cancelled() else inner.exception()
        if outer.done():
            return
        if error is None:
            outer.set_result(inner.result())
        elif _passes(error):
            self._spawn(self._retry(outer, slot, send, asked, error))
        else:
            if isinstance(error, StoreUnavailable):
                self._refresh_soon()
            outer.set_exception(error)

    async def _retry(
        self,
        outer: asyncio.Future[Any],
        slot: int,
        send: Send,
        asked: tuple[Any, ...] | None,
        error: BaseException | None = None,
    ) -> None:
        """Follow the cluster until the call ran, or its deadline is over."""
        try:
            async with asyncio.timeout(self._deadline_s):
                while not outer.done():
                    try:
                        reply = await self._once(slot, send, asked, error)
                    except ResponseError as failed:
                        if not _passes(failed):
                            raise
                        error = failed
                        continue
                    if not outer.done():
                        outer.set_result(reply)
        except TimeoutError:
            if not outer.done():
                outer.set_exception(StoreUnavailable("the cluster does not settle"))
        except (StoreUnavailable, ResponseError) as failed:
            self._refresh_soon()
            if not outer.done():
                outer.set_exception(failed)

    async def _once(self, slot: int, send: Send, asked: tuple[Any, ...] | None, error: BaseException | None) -> Any:
        if isinstance(error, MovedError):
            self._owner[slot] = (error.host, error.port)
            self._refresh_soon()
        elif isinstance(error, AskError) and asked is not None:
            link = self._link((error.host, error.port))
            asking, reply = link.command("ASKING"), link.command(*asked)
            await asking
            return await reply
        elif error is not None:
            await asyncio.sleep(_AGAIN_S)
        while (node := self._owner[slot]) is None:
            self._refresh_soon()
            await self._known.wait()
            await asyncio.sleep(_AGAIN_S if self._owner[slot] is None else 0)
        return await send(self._link(node))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _link(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            url = urlunsplit(self._url._replace(netloc=_with_login(self._url.netloc, node)))
            link = Link(url, deadline_s=self._deadline_s, name=self._name)
            link.start()
            self._stack.push_async_exit(link.__aexit__)
            self._links[node] = link
        return link

    def _refresh_soon(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        """Learn who owns which slots from any node that answers."""
        for node in (*self._seeds, *self._links):
            try:
                ranges = await self._link(node).command("CLUSTER", "SLOTS")
            except (StoreUnavailable, ResponseError):
                continue
            for first, last, primary, *_replicas in ranges:
                host = primary[0].decode() or node[0]
                for slot in range(first, last + 1):
                    self._owner[slot] = (host, primary[1])
            self._known.set()
            break
        await asyncio.sleep(_REFRESH_AT_MOST_EVERY_S)


def _passes(error: BaseException) -> bool:
    """Whether a reply means that a slot is elsewhere, or under way: then the call did not run, and goes again."""
    if isinstance(error, MovedError | AskError | TryAgainError | ClusterDownError):
        return True
    # Of `look`, whose second key is made in the script: the first is still here, and that one has moved on already.
    return isinstance(error, ResponseError) and _NOT_LOCAL in str(error)


def _node(text: str) -> Node:
    host, _, port = text.rpartition(":")
    return (host or port, int(port) if host else 6379)


def _with_login(netloc: str, node: Node) -> str:
    login, at, _ = netloc.rpartition("@")
    return f"{login}{at}{node[0]}:{node[1]}"


def _tag(key: str) -> str:
    """The part of a key that decides its slot; one of 256 for almost every call, so the sum is kept."""
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if 0 <= start < end - 1 else key


@lru_cache(maxsize=4096)
def _slot(tag: str) -> int:
    return key_slot(tag.encode())
