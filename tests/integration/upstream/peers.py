"""A raw upstream whose every byte the test writes, and certificates for it."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """One connection as the upstream sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number
        self.done = asyncio.get_running_loop().create_future()

    async def request(self) -> tuple[bytes, bytes]:
        """The next request's head and body; both empty when the client has left."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            fields = head.lower()
            length = fields.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = await self.reader.readexactly(int(length or 0))
            if b"transfer-encoding: chunked" in fields:
                body = await self._chunks()
        except (asyncio.IncompleteReadError, ConnectionError):
            return b"", b""
        return head, body

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return b"".join(parts)

    async def left(self) -> None:
        """Until the client has closed; what it still sends is of no interest."""
        with suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def send(self, data: bytes) -> None:
        if not self.writer.transport.is_closing():  # uvloop's would raise
            self.writer.write(data)

    def send_now(self, data: bytes) -> None:
        """Into the client's kernel before anyone can look away."""
        os.write(self.writer.get_extra_info("socket").fileno(), data)

    def half_close_now(self) -> None:
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as same:
            same.shutdown(socket.SHUT_WR)

    def fin(self) -> None:
        self.writer.close()

    def rst(self) -> None:
        if self.writer.transport.is_closing():
            return
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Upstream:
    """A server of peers, each of which the same function plays."""

    def __init__(self, play: Callable[[Peer], Awaitable[None]], *, host: str, tls: ssl.SSLContext | None) -> None:
        self._play = play
        self._host = host
        self._tls = tls
        self.port = 0
        self.peers: list[Peer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}/v1"

    @property
    def open(self) -> int:
        return sum(not peer.done.done() for peer in self.peers)

    async def start(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, self._host, port, ssl=self._tls, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def until(self, true: Callable[[], bool]) -> None:
        """Looked at whenever a connection comes or goes."""
        async with asyncio.timeout(5):
            while not true():
                self._moved.clear()
                await self._moved.wait()

    def moved(self) -> None:
        self._moved.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer, len(self.peers))
        self.peers.append(peer)
        self.moved()
        try:
            await self._play(peer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            peer.done.set_result(None)
            self.moved()


@asynccontextmanager
async def upstream(
    play: Callable[[Peer], Awaitable[None]],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Upstream]:
    running = Upstream(play, host=host, tls=tls)
    server = await running.start(port)
    try:
        yield running
    finally:
        server.close()
        await running.stop()


def answers(*wires: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A request, an answer, and so on; the last answer again and again, until the client leaves."""

    async def play(peer: Peer) -> None:
        number = 0
        while (await peer.request())[0]:
            peer.send(wires[min(number, len(wires) - 1)])
            number += 1

    return play


def bare() -> ssl.SSLContext:
    """Trusts nobody, and is quick to make."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Authority:
    """A CA of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's CA")])
        authority = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        signs = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False, **usage
        )
        authority = authority.add_extension(signs, critical=True).add_extension(self._identifier, critical=False)
        self.path = folder / "ca.pem"
        self.path.write_bytes(authority.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.path))

    def server(self, name: str) -> ssl.SSLContext:
        """What a server of this name or address needs."""
        try:
            general: x509.GeneralName = x509.IPAddress(ip_address(name))
        except ValueError:
            general = x509.DNSName(name)
        key = ec.generate_private_key(ec.SECP256R1())
        signed = (
            self._builder(x509.Name([]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([general]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{name}.pem"
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    @property
    def _identifier(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        day = timedelta(days=1)
        return x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number(), now - day, now + day)
