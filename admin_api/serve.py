"""The admin API as a process: settings, stores in order, one listening socket, and word to whoever waits for it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys

import uvicorn
from pymongo.errors import PyMongoError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from admin_api.app import create_app
from admin_api.problems import MONGO_AWAY, REDIS_AWAY
from ledger import catalogue, publish, settings
from ledger.cold import ColdBook, ColdBookError
from ledger.connect import connect
from ledger.link import Caller
from ledger.settings import Settings, SettingsError
from ledger.vault import Vault, VaultError

NEED = ("WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY", "WEIR_ADMIN_TOKEN")


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit status: 0, or 2 with one line on stderr for each thing to mend."""
    try:
        loaded = settings.load(need=NEED)
        asyncio.run(_run(loaded))
    except SettingsError as error:
        return _failed(*error.lines)
    except (ColdBookError, VaultError) as error:
        return _failed(str(error))
    except PyMongoError as error:
        return _failed(f"MongoDB cannot be used ({type(error).__name__}): is WEIR_MONGO_URL right, and is it running?")
    except OSError as error:
        return _failed(f"cannot listen on {loaded.admin_addr}: {error.strerror}; set WEIR_ADMIN_ADDR to another")
    return 0


def _failed(*lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201  for the person who started it
    return 2


async def _run(loaded: Settings) -> None:
    assert loaded.master_key is not None
    vault = Vault(loaded.master_key, loaded.master_key_previous)
    cold = ColdBook(loaded.mongo_url)
    try:
        await cold.prepare()
        async with connect(loaded.redis_url, name="weir-admin") as redis:
            await _pepper(cold, redis, vault)
            app = create_app(loaded, cold, redis, vault)
            config = uvicorn.Config(
                app, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=10
            )
            await _serve(_Server(config), _listen(loaded), cold, redis)
    finally:
        await cold.close()


async def _pepper(cold: ColdBook, redis: Caller, vault: Vault) -> None:
    """See that keys can be made: there is a pepper, it opens, and, if Redis is there, the gateway knows it."""
    version = await publish.ensure_pepper(cold, vault)
    found = await cold.peppers.find_one({"_id": version})
    assert found is not None
    vault.open(found["sealed"], purpose=catalogue.pepper_purpose(version))
    single = await cold.singles.find_one({"_id": "config"})
    if single is not None and single["published"] < single["version"]:
        with contextlib.suppress(*REDIS_AWAY):
            await publish.config(cold, redis)


def _listen(loaded: Settings) -> socket.socket:
    inherited = os.environ.get("WEIR_LISTEN_FD")
    if inherited:
        return socket.socket(fileno=int(inherited))
    address = loaded.admin_addr
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address.host, address.port))
    listener.listen(128)
    print(f"the admin API listens on http://{address.host}:{listener.getsockname()[1]}", file=sys.stderr)  # noqa: T201
    return listener


class _Server(uvicorn.Server):
    """Says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


async def _serve(server: _Server, listener: socket.socket, cold: ColdBook, redis: Caller) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it has stopped; a handler of ours makes that a clean exit.
        loop.add_signal_handler(number, lambda: None)
    telling = asyncio.create_task(_tell_when_ready(server, cold, redis))
    try:
        await server.serve(sockets=[listener])
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling


async def _tell_when_ready(server: _Server, cold: ColdBook, redis: Caller) -> None:
    """Write `ready` to WEIR_READY_FD once this serves and both stores have answered."""
    await server.up.wait()
    away = retry_if_exception_type((*REDIS_AWAY, *MONGO_AWAY))
    async for attempt in AsyncRetrying(retry=away, wait=wait_random_exponential(0.05, max=1)):
        with attempt:
            await redis.command("PING")
            await cold.client.admin.command("ping")
    fd = os.environ.get("WEIR_READY_FD")
    if fd:
        os.write(int(fd), b"ready\n")
