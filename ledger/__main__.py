"""`python -m ledger`: one ledger worker (`weir ledger` starts it with its metrics address)."""

import asyncio

import uvloop
from pymongo.errors import ConnectionFailure
from tenacity import RetryCallState, retry, retry_if_exception_type, wait_random_exponential

from ledger import log, process, publish
from ledger.cluster import SCHEME
from ledger.cold import ColdBook, ColdBookError
from ledger.connect import connect
from ledger.connections import client, close_pool
from ledger.settings import Settings
from ledger.vault import Vault
from ledger.worker import Worker


async def run(settings: Settings) -> None:
    """Serve until told to stop."""
    assert settings.master_key is not None
    vault = Vault(settings.master_key, settings.master_key_previous)
    cold = ColdBook(settings.mongo_url)
    alone = not settings.redis_url.startswith(f"{SCHEME}://")
    reader = client(settings.redis_url, name="weir-ledger-reader", timeout_s=10) if alone else None
    try:
        await _prepare(cold, vault)
        async with connect(settings.redis_url, name="weir-ledger", deadline_s=10) as link:
            worker = Worker(cold, link, reader, on_ready=process.ready)
            process.on_stop(worker.stop)
            await worker.run()
    finally:
        if reader is not None:
            await close_pool(reader.connection_pool)
        await cold.close()


def _waiting(state: RetryCallState) -> None:
    assert state.outcome is not None
    log.get().warning("waiting_for_mongodb", attempts=state.attempt_number, exc=state.outcome.exception())


@retry(
    retry=retry_if_exception_type(ConnectionFailure), wait=wait_random_exponential(0.2, max=2), before_sleep=_waiting
)
async def _prepare(cold: ColdBook, vault: Vault) -> None:
    """Indexes, instance and pepper, once MongoDB answers: a worker that starts before it waits for it."""
    await cold.prepare()
    await publish.ensure_pepper(cold, vault)


def main() -> None:
    settings = process.settings_or_exit("WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY")
    log.setup("ledger")
    try:
        uvloop.run(run(settings))
    except ColdBookError as error:
        raise process.fail(str(error)) from None
    except asyncio.CancelledError:
        pass


if __name__ == "__main__":
    main()
