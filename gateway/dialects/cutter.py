"""Cutting a byte stream into pieces."""


class Cutter:
    """Cuts a byte stream into pieces, each with one document in it."""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that are complete now."""
        raise NotImplementedError

    def rest(self) -> bytes:
        """The bytes of a piece that has not ended."""
        raise NotImplementedError

    def document(self, piece: bytes) -> bytes:
        """What a piece says."""
        return piece
