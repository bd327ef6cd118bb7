"""`python -m bench.provider`: the scripted provider as a process. Prints one JSON line once it listens."""

import argparse
import asyncio
import json
import signal

import uvloop

from bench.provider.provider import ScriptedProvider
from bench.provider.script import DEFAULT_TEXT, Behaviour


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.provider", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--text", default=DEFAULT_TEXT, help="what it answers")
    parser.add_argument("--chunks", type=int, help="content chunks of a stream; one a word if not given")
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="between chunks")
    parser.add_argument("--record-bodies", action="store_true", help="keep what callers send, in memory")
    options = parser.parse_args()
    default = Behaviour(text=options.text, chunks=options.chunks, pace_s=options.pace)
    provider = ScriptedProvider(default, host=options.host, port=options.port, record_bodies=options.record_bodies)
    uvloop.run(_serve(provider))


async def _serve(provider: ScriptedProvider) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with provider:
        print(json.dumps({"url": provider.url}), flush=True)
        await stopped.wait()


if __name__ == "__main__":
    main()
