"""T2: the append-only file is cut at every offset of the last two scripts. Each is there whole or not at all.

The second restart, with writes in between, is the one that shows a tear which the first has hidden (reliability.md 0.1).
"""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ledger import rewrite
from ledger.link import Link
from tests.faults.options import Tally, asked
from tests.faults.servers import Kind, RedisServer, started
from tests.lua.books import USD, Books, P, State

LONG_US = 3_600_000_000  # all cuts are of one story, which is older the later they come
CUTS = asked(full=1_000, short=24)
AT_ONCE = 3


@dataclass
class Story:
    """The file, where each of the last two scripts ends in it, and the books as they were there."""

    folder: Path
    tail: str
    ends: list[int]
    books: list[State]

    def at(self, offset: int) -> State:
        return self.books[sum(end <= offset for end in self.ends) - 1]


async def test_t2_crash_points(kind: Kind, tally: Tally, tmp_path: Path) -> None:
    story = await _tell(kind, tmp_path / "story")
    offsets = list(range(story.ends[0], story.ends[-1] + 1))
    picked = offsets if len(offsets) <= CUTS else sorted(tally.random.sample(offsets, CUTS))
    room = asyncio.Semaphore(AT_ONCE)

    async def one(offset: int) -> None:
        async with room:
            await _cut(kind, story, offset, tmp_path / f"cut-{offset}")
            tally.add("cuts")

    async with asyncio.TaskGroup() as cuts:
        for offset in picked:
            cuts.create_task(one(offset))
    tally.note(server=kind.name, offsets_of_two_scripts=len(offsets), restarts=2 * len(picked))
    tally.at_least(cuts=min(CUTS, len(offsets)))
    tally.check()


async def _tell(kind: Kind, folder: Path) -> Story:
    """A partition with some past; then an admit, and the settle of another request."""
    redis = RedisServer(kind, folder)
    ends, pictures = [], []
    async with started(redis), Link(redis.url) as link:
        books = Books(link)
        await books.ready()
        for rid in ("r1", "r2", "r3"):
            await books.admitted(rid, 3 * USD)
        await books.settle("r1", USD)
        for last in (None, books.admitted("r4", USD), books.settle("r2", 2 * USD)):
            if last is not None:
                await last
            ends.append(redis.tail.stat().st_size)
            pictures.append(_money(await books.picture(events_within_us=LONG_US)))
        tail = redis.tail.name
    return Story(folder, tail, ends, pictures)


async def _cut(kind: Kind, story: Story, offset: int, folder: Path) -> None:
    shutil.copytree(story.folder, folder)
    os.truncate(folder / "appendonlydir" / story.tail, offset)
    redis = RedisServer(kind, folder)
    async with started(redis):
        async with Link(redis.url) as link:
            books = Books(link)
            await _open(books, term=2)
            found, expected = _money(await books.picture(events_within_us=LONG_US)), story.at(offset)
            assert found == expected, f"cut at {offset} of {story.ends}: {found} is not {expected}"
            await books.admitted("r5", USD)
            await books.settle("r3", USD)
            before = _money(await books.picture(events_within_us=LONG_US))
        redis.kill()
        await redis.start()
        async with Link(redis.url) as link:
            books = Books(link)
            await _open(books, term=3)
            found = _money(await books.picture(events_within_us=LONG_US))
            assert found == before, f"cut at {offset} of {story.ends}, second restart: {found} is not {before}"
    shutil.rmtree(folder)


async def _open(books: Books, *, term: int) -> None:
    """As the worker does it."""
    await rewrite.finish(books.link, [P])
    await books.open(term=term, epoch=term)


def _money(picture: State) -> State:
    """What reopening leaves alone: not the partition's own record, and not when leases end."""
    return {key: sorted(value) if key == "due" else value for key, value in picture.items() if key != "meta"}
