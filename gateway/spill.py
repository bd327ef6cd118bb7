"""Charges that Redis has not safely got yet, on disk: a gateway that dies leaves them for the next one.

Segments in one folder, one writer each: a line a settlement, `<crc32> <JSON>`, fsynced once a batch, mode 0600, no content
(a settlement has none). A segment is locked by the worker that writes it; one that nobody holds any more is adopted by
whichever worker finds it first. A segment is deleted when everything in it has arrived.
"""

import fcntl
import os
import zlib
from pathlib import Path

import msgspec

from ledger.settlement import Settlement

MAX_BYTES = 256 * 1024 * 1024
SEGMENT_BYTES = 8 * 1024 * 1024

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Settlement)


class Segment:
    """One file of settlements, locked for as long as this worker lives or until it is deleted."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.size = 0
        self.outstanding: set[str] = set()

    def append(self, settlements: list[Settlement]) -> None:
        """Write a batch, and return when it is on disk."""
        data = b"".join(_line(settlement) for settlement in settlements)
        os.write(self._descriptor, data)
        os.fdatasync(self._descriptor)
        self.size += len(data)

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def close(self) -> None:
        """Leave the file for another worker."""
        os.close(self._descriptor)


class Spill:
    """This worker's segments, and those that it adopts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._segments: list[Segment] = []
        self._where: dict[str, Segment] = {}
        self._made = 0

    @property
    def bytes_used(self) -> int:
        return sum([segment.size for segment in self._segments])

    def write(self, settlements: list[Settlement]) -> None:
        """Put settlements on disk; blocks for as long as the disk takes. OSError if it cannot."""
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.size > SEGMENT_BYTES or not segment.outstanding:
            segment = self._new()
        segment.append(settlements)
        for settlement in settlements:
            segment.outstanding.add(settlement.rid)
            self._where[settlement.rid] = segment

    def holds(self, rid: str) -> bool:
        return rid in self._where

    def done(self, rid: str) -> None:
        """A settlement has arrived for good; its segment goes when it was the last in it."""
        segment = self._where.pop(rid, None)
        if segment is None:
            return
        segment.outstanding.discard(rid)
        if not segment.outstanding:
            self._segments.remove(segment)
            segment.delete()

    def adopt(self) -> list[Settlement]:
        """Take over segments that no living worker holds; what is in them has to be settled again."""
        own = {segment._path for segment in self._segments}  # noqa: SLF001 - its own class's
        found: list[Settlement] = []
        for path in sorted(self._folder.glob("*.spill")):
            if path in own:
                continue
            descriptor = _lock(path, os.O_RDWR | os.O_APPEND)
            if descriptor is None:
                continue
            segment = Segment(path, descriptor)
            settlements = _read(path)
            if not settlements:
                segment.delete()
                continue
            segment.size = path.stat().st_size
            segment.outstanding = {settlement.rid for settlement in settlements}
            self._segments.insert(0, segment)
            self._where.update(dict.fromkeys(segment.outstanding, segment))
            found += settlements
        return found

    def close(self) -> None:
        for segment in self._segments:
            segment.close()

    def _new(self) -> Segment:
        self._made += 1
        path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}-{self._made}.spill"
        descriptor = _lock(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        assert descriptor is not None
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)  # the file's name must survive as well
        os.close(folder)
        segment = Segment(path, descriptor)
        self._segments.append(segment)
        return segment


def _lock(path: Path, flags: int) -> int | None:
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _line(settlement: Settlement) -> bytes:
    text = _encoder.encode(settlement)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(path: Path) -> list[Settlement]:
    """Every whole line; a torn one was never said to be on disk."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        checksum, _, text = line.partition(b" ")
        if text and checksum == b"%08x" % zlib.crc32(text):
            found.append(_decoder.decode(text))
    return found
