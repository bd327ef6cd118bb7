"""Everything that runs side by side: the upstreams, the contestants, and who is at work while one is measured."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import psutil

from bench.contest import MODEL, Adapter, Contestant, Measure, Upstreams, Way
from bench.contestants import litellm, naive, nginx, portkey, weir
from bench.load import closed
from bench.load.closed import Keys
from bench.load.once import obstacle
from bench.machine import CannotRunError, family, pin
from bench.stack import Stack
from bench.upstreams.nginx import AnswerCounter, Nginx, upstream
from bench.upstreams.streams import Writer, writer

DIRECT = "direct"
"""No proxy at all: what the upstream itself takes, and what the bare writer costs."""
PEERS: Mapping[str, Adapter] = {
    "nginx": nginx.run,
    "naive": naive.run,
    "LiteLLM": litellm.run,
    "Portkey": portkey.run,
}
STARTED = "start"


class Arena:
    """Contestants that run, by name."""

    def __init__(self, folder: Path, cores: tuple[int, int]) -> None:
        self.folder = folder
        self.core, self.other_core = cores
        self.contestants: dict[str, Contestant] = {}
        self.started: list[Measure] = []
        self.keys: Keys | None = None
        self.stack: Stack
        self.shared: AnswerCounter
        self.behind: tuple[AnswerCounter, Writer]
        """Weir's upstreams are its own, so that they count its requests and no others."""
        self.writers: dict[str, Writer] = {}

    def writer(self, name: str) -> Writer:
        """Where a contestant's streams come from."""
        return self.writers.get(name, self.writers["shared"])

    def names(self, *, slow: bool = True, direct: bool = False) -> list[str]:
        return [name for name, one in self.contestants.items() if (slow or not one.slow) and (direct or name != DIRECT)]

    @contextmanager
    def turn(self, name: str, *, with_ledger: bool = False) -> Iterator[Contestant]:
        """This one is awake and the others that can rest do.

        So does Weir's ledger, as if it had a machine of its own: two cores have no room for it beside the gateway, Redis,
        the upstream and the load. What waits for it then, it writes before the next turn begins. `with_ledger`: it is at
        work meanwhile, on the core of Redis.
        """
        self.stack.wait_until_drained()
        asleep = nullcontext() if with_ledger else self.stack.ledger_asleep()
        chosen = self.contestants[name]
        if chosen.rests:
            _each(chosen, "resume")
        try:
            with asleep:
                yield chosen
        finally:
            if chosen.rests:
                _each(chosen, "suspend")

    def enter(self, contestant: Contestant, before: float) -> None:
        """It has been started, since `before`; from its first answer on it takes part."""
        pin(contestant.processes, self.core)
        if why := obstacle(contestant.plain):
            raise CannotRunError(f"{contestant.name} runs and gives no answer: {why}")
        rss = sum(process.memory_info().rss for process in contestant.processes)
        values = {"start_s": time.monotonic() - before, "rss_mb": rss / 1e6}
        self.started.append(Measure(STARTED, contestant.name, 0, values))
        for _ in range(20):
            obstacle(contestant.plain)
        if not contestant.slow:
            closed.run(contestant, seconds=1, connections=4)
        self.contestants[contestant.name] = contestant
        if contestant.rests:
            _each(contestant, "suspend")


@contextmanager
def opened(folder: Path, cores: tuple[int, int], peers: list[str]) -> Iterator[Arena]:
    """Start everything; each contestant has answered some requests."""
    arena = Arena(folder, cores)
    with ExitStack() as running:
        shared = running.enter_context(upstream(folder, "shared"))
        arena.shared = AnswerCounter(shared)
        own = running.enter_context(upstream(folder, "behind"))
        for name in (DIRECT, "shared", weir.NAME):
            arena.writers[name] = running.enter_context(writer(folder, f"writer-{name}"))
        arena.behind = AnswerCounter(own), arena.writers[weir.NAME]
        _direct(arena, shared)
        before = time.monotonic()
        ours = Upstreams(own.url, arena.writers[weir.NAME].url)
        contestant, arena.stack = running.enter_context(weir.run(folder, ours))
        arena.enter(contestant, before)
        for name in peers:
            print(f"bench: starting {name}", file=sys.stderr)
            before = time.monotonic()
            theirs = Upstreams(shared.url, arena.writers["shared"].url)
            contestant = running.enter_context(PEERS[name](folder, theirs))
            running.callback(_wake, contestant)
            arena.enter(contestant, before)
        yield arena


def _direct(arena: Arena, shared: Nginx) -> None:
    bare = arena.writers[DIRECT]
    path = "/v1/chat/completions"
    plain, stream = Way(f"{shared.url}{path}", "sk-none", MODEL), Way(f"{bare.url}{path}", "sk-none", MODEL)
    # The CPU that counts is the writer's, which alone has the measured core; the other upstream only serves.
    arena.contestants[DIRECT] = Contestant(DIRECT, "", plain, stream, [bare.process])
    pin([bare.process], arena.core)


def _wake(contestant: Contestant) -> None:
    """A stopped process does not hear that it is to end."""
    _each(contestant, "resume")


def _each(contestant: Contestant, what: str) -> None:
    """Those that have not ended; of the others whoever measures them is told."""
    for process in family(contestant.processes[0]):
        with suppress(psutil.NoSuchProcess):
            getattr(process, what)()
