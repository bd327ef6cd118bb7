"""`weir up` as an operator meets it: ready quickly, stopped cleanly, killed without leftovers, mistakes in one line."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil

from bench.provider import Behaviour, ScriptedProvider
from tests.conftest import valkey, wait_until
from tests.stack import WEIR, Stack, environment, eventually, http, running_stack, start

ASK = [{"role": "user", "content": "Hello"}]


async def ask(stack: Stack, key: str, model: str, **more: Any) -> Any:
    async with http() as client:
        return await ask_with(client, stack, key, model, **more)


async def ask_with(client: httpx2.AsyncClient, stack: Stack, key: str, model: str, **more: Any) -> Any:
    return await client.post(
        f"{stack.base_url}/chat/completions",
        json={"model": model, "messages": ASK, "max_tokens": 100, **more},
        headers={"authorization": f"Bearer {key}"},
    )


def refuses(env: dict[str, str], *says: str, command: str = "up") -> None:
    """The command ends with status 2 and one line a problem, none of them a traceback."""
    done = subprocess.run([*WEIR, command], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    problems = [line for line in done.stderr.splitlines() if "starting" not in line and "stopping" not in line]
    assert len(problems) == len(says), done.stderr
    for line, said in zip(problems, says, strict=True):
        assert said in line


def test_the_demo_works_as_pasted_and_is_there_again_after_a_restart(tmp_path: Path) -> None:
    """What `make run` prints is pasted into a shell; a second start finds the balance and revokes the old key."""
    env = environment(tmp_path / "data", WEIR_ALLOW_PRIVATE_UPSTREAMS="")
    printed = tmp_path / "printed"
    with printed.open("wb") as out:
        running = subprocess.Popen([*WEIR, "up", "--demo"], env=env, stdout=out, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: "Ctrl-C" in printed.read_text(), seconds=90)
        text = printed.read_text()
        lines = [
            line.strip() for line in text.splitlines() if line.startswith("  ") and ("curl" in line or "-c '" in line)
        ]
        assert len(lines) == 5
        answers = [
            subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout for line in lines
        ]
        assert json.loads(answers[0])["choices"][0]["message"]["content"] == "Hello from the scripted provider."
        assert answers[1].strip().endswith("data: [DONE]")
        assert answers[2].strip() == answers[3].strip() == "Hello from the scripted provider."
        # Four requests of 1 token in and 5 out, at $2 and $8 per million.
        gateway = re.search(r"gateway\s+(\S+)", text)
        assert gateway
        spent = 4 * (1 * 2_000 + 5 * 8_000)
        wait_until(lambda: _balance(lines[4])["spent_nanos"] == spent)
        assert _balance(lines[4])["credited_nanos"] == 25_000_000_000
        old_key = re.search(r"demo API key\s+(\S+)", text)
        assert old_key
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        assert running.stderr is not None
        running.stderr.close()
    with running_stack(tmp_path / "data", "--demo") as again:
        headers = {"authorization": f"Bearer {again.api_key}"}
        found = httpx2.get(f"{again.gateway}/weir/v1/balance", headers=headers).json()
        assert (found["credited_nanos"], found["spent_nanos"]) == (25_000_000_000, spent)
        old = httpx2.get(f"{again.gateway}/weir/v1/balance", headers={"authorization": f"Bearer {old_key[1]}"})
        assert old.status_code == 401
        assert again.audit()["spent_nanos"] == spent


def _balance(line: str) -> Any:
    return json.loads(subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout)


def test_ready_in_five_seconds_and_nothing_left_behind(tmp_path: Path) -> None:
    with running_stack(tmp_path / "data"):
        pass  # the first start makes the stores' files
    began = time.monotonic()
    stack = start(environment(tmp_path / "data"))
    assert time.monotonic() - began < 15, "5 s on a quiet machine; this bound only catches a hang"
    left = stack.processes()
    assert len(left) == 5
    try:
        assert httpx2.get(f"{stack.ops}/readyz").json()["status"] == "ready"
        assert httpx2.get(f"{stack.ops}/healthz").status_code == 200
        assert httpx2.get(f"{stack.gateway}/readyz").status_code == 200
        assert httpx2.get(f"{stack.gateway}/healthz").status_code == 200
    finally:
        stack.process.kill()
        stack.process.wait()
    assert psutil.wait_procs(left, timeout=10)[1] == []
    for pipe in (stack.process.stdout, stack.process.stderr):
        assert pipe is not None
        pipe.close()
    with running_stack(tmp_path / "data") as again:
        assert again.audit()["agrees"]
        left = again.processes()
        assert again.stop(signal.SIGINT) == 0
    assert psutil.wait_procs(left, timeout=1)[1] == []


async def test_every_process_killed_in_turn_and_the_books_still_balance(tmp_path: Path) -> None:
    """Each is killed under load and restarted by itself; and the next start finds everything in order."""
    async with ScriptedProvider() as provider:
        with running_stack(tmp_path / "data") as stack:
            model, customer = await stack.model(provider.url), await stack.customer()
            stop = asyncio.Event()

            async def load() -> int:
                good = 0
                async with http() as client:
                    while not stop.is_set():
                        with contextlib.suppress(httpx2.TransportError):
                            good += (await ask_with(client, stack, customer.key, model)).status_code == 200
                        await asyncio.sleep(0.02)  # who is told no at once would keep a core busy with asking
                return good

            callers = [asyncio.create_task(load()) for _ in range(4)]
            for word in ("gateway", "valkey-server", "mongod", "ledger", "admin_api"):
                await under_load(provider, 20)
                victims = [p for p in stack.processes() if word in p.cmdline() or f"/{word}" in p.cmdline()[0]]
                assert len(victims) == 1
                victims[0].kill()
                await under_load(provider, 20)
            stop.set()
            good = sum(await asyncio.gather(*callers))
            assert good > 100
            ready = f"{stack.ops}/readyz"
            async with http() as client:
                await eventually(lambda: client.get(ready), lambda answer: answer.status_code == 200, seconds=90)
        with running_stack(tmp_path / "data") as again:
            balance = await again.balance(customer.id)
            owed = balance["spent_nanos"] + balance["held_nanos"]
            assert balance["available_nanos"] == balance["credited_nanos"] - owed
            # What the dead gateway held is given back when its leases end.
            balance = await eventually(lambda: again.balance(customer.id), lambda b: b["held_nanos"] == 0, seconds=90)
            assert again.audit()["spent_nanos"] == balance["spent_nanos"] <= provider.stats.billed_requests * 62_500
            # What a caller got whole was charged; a gateway that died may only have left requests unanswered.
            assert balance["spent_nanos"] >= good * 52_500


async def under_load(provider: ScriptedProvider, more: int) -> None:
    """Requests get through: so many more have reached the provider."""
    before = provider.stats.requests
    await provider.wait_for(lambda p: p.stats.requests > before + more, timeout_s=90)


def test_a_terminal_that_goes_ends_it_but_not_under_nohup(tmp_path: Path) -> None:
    # What is started inherits it, and these tests themselves may run under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with running_stack(tmp_path / "data") as stack:
            stack.process.send_signal(signal.SIGHUP)
            assert stack.process.wait(30) == 0
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with running_stack(tmp_path / "data") as stack:
            for process in (psutil.Process(stack.process.pid), stack.child("gateway")):
                (ignored,) = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
                assert int(ignored, 16) & 1 << (signal.SIGHUP - 1)
                process.send_signal(signal.SIGHUP)
            assert httpx2.get(f"{stack.gateway}/healthz").status_code == 200
    finally:
        signal.signal(signal.SIGHUP, before)


async def ask_quietly(stack: Stack, key: str, model: str) -> Any:
    try:
        return await ask(stack, key, model)
    except httpx2.TransportError:
        return httpx2.Response(599)


async def test_sigterm_lets_open_streams_finish(tmp_path: Path) -> None:
    words = " ".join(["word"] * 30)
    async with ScriptedProvider(Behaviour(text=words, chunks=30, stall_after_chunks=10)) as provider:
        with running_stack(tmp_path / "data") as stack:
            model, customer = await stack.model(provider.url), await stack.customer()
            streams = [asyncio.create_task(ask(stack, customer.key, model, stream=True)) for _ in range(20)]
            await provider.wait_for(lambda p: p.stats.held == 20)
            gateway = stack.child("gateway")
            stack.process.send_signal(signal.SIGTERM)
            host, port = stack.gateway.removeprefix("http://").split(":")
            del host
            # The signal has arrived when readiness is withdrawn: the listener closes with it.
            await eventually(lambda: _listens(gateway), lambda listening: not listening, seconds=90)
            provider.release()
            answers = await asyncio.gather(*streams)
            assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
            assert await asyncio.to_thread(stack.process.wait, 30) == 0
            del port
        with running_stack(tmp_path / "data") as again:
            events = await again.events(customer.id, 20)
            balance = await again.balance(customer.id)
            assert len(events) == 20
            assert {event["outcome"] for event in events} == {"complete"}
            assert balance["held_nanos"] == 0
            assert balance["spent_nanos"] == sum(event["charge_nanos"] for event in events)
            assert again.audit()["agrees"]


async def _listens(process: psutil.Process) -> bool:
    """Whether a gateway still takes new connections; its own listener, whoever else holds the socket."""
    try:
        return any(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return False


async def test_streams_that_outlast_the_grace_are_cut_and_settled(tmp_path: Path) -> None:
    words = " ".join(["word"] * 30)
    async with ScriptedProvider(Behaviour(text=words, chunks=30, stall_after_chunks=10)) as provider:
        with running_stack(tmp_path / "data", WEIR_GRACE_S="1") as stack:
            model, customer = await stack.model(provider.url), await stack.customer()
            streams = [asyncio.create_task(ask_quietly_streamed(stack, customer.key, model)) for _ in range(10)]
            await provider.wait_for(lambda p: p.stats.held == 10)
            assert await asyncio.to_thread(stack.stop) == 0
            assert not any(text.endswith("data: [DONE]\n\n") for text in await asyncio.gather(*streams))
        with running_stack(tmp_path / "data") as again:
            events = await again.events(customer.id, 10)
            assert all(event["estimated"] and event["usage"]["output"] >= 10 for event in events)
            assert (await again.balance(customer.id))["held_nanos"] == 0
            assert again.audit()["agrees"]


async def ask_quietly_streamed(stack: Stack, key: str, model: str) -> str:
    try:
        return str((await ask(stack, key, model, stream=True)).text)
    except httpx2.TransportError:
        return "cut"


async def test_a_killed_worker_takes_its_gauges_along(tmp_path: Path) -> None:
    async with ScriptedProvider(Behaviour(gate=True)) as provider:
        with running_stack(tmp_path / "data", WEIR_WORKERS="2") as stack:
            model, customer = await stack.model(provider.url), await stack.customer("100")
            calls = [asyncio.create_task(ask_quietly(stack, customer.key, model)) for _ in range(8)]
            await provider.wait_for(lambda p: p.stats.held == 8)
            workers = [p for p in stack.processes() if "gateway" in p.cmdline()]
            assert len(workers) == 2
            gauge = re.compile(r"^weir_upstream_open\{[^}]*\} ([0-9.]+)$", re.MULTILINE)

            async def open_now() -> float:
                return sum(float(value) for value in gauge.findall(await stack.metrics()))

            await eventually(open_now, lambda count: count == 8)
            for worker in workers:
                worker.kill()
            await eventually(open_now, lambda count: count == 0)
            await asyncio.gather(*calls)


async def test_redis_down_is_a_503_and_mongodb_down_is_nothing(tmp_path: Path, mongo_url: str) -> None:
    folder = tmp_path / "valkey"
    with valkey(folder) as server:
        port, redis_url = server.port, server.url
        stack = start(environment(tmp_path / "data", WEIR_REDIS_URL=redis_url, WEIR_MONGO_URL=mongo_url))
    try:
        async with ScriptedProvider() as provider:
            key = "weir_00aaaaaaaaaaaa_" + "x" * 38
            answer = await ask(stack, key, "any")
            assert answer.status_code == 401  # not a key that anybody can have issued: no store is needed to say so
            with valkey(folder, port=port):
                model = await eventually_made(stack, provider.url)
                customer = await stack.customer()
                await eventually(lambda: ask(stack, customer.key, model), lambda a: a.status_code == 200, seconds=90)
            answer = await ask(stack, customer.key, model)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "temporarily_unavailable")
            assert int(answer.headers["retry-after"]) == 1
            assert answer.headers["x-weir-refusal"] == "temporarily_unavailable"
            assert httpx2.get(f"{stack.gateway}/readyz").status_code == 503
            with valkey(folder, port=port):
                await eventually(lambda: ask(stack, customer.key, model), lambda a: a.status_code == 200, seconds=90)
    finally:
        assert stack.stop() == 0
        for pipe in (stack.process.stdout, stack.process.stderr):
            assert pipe is not None
            pipe.close()


async def eventually_made(stack: Stack, url: str) -> str:
    """A model, once the partitions are open again."""

    async def attempt() -> str:
        try:
            return await stack.model(url)
        except AssertionError:
            return ""

    return await eventually(attempt, bool, seconds=90)


def test_an_operators_mistakes_are_one_line_each(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name in ("WEIR_GATEWAY_ADDR", "WEIR_ADMIN_ADDR", "WEIR_OPS_ADDR"):
            refuses(environment(tmp_path / "a", **{name: address}), name)
    refuses(
        environment(tmp_path / "b", WEIR_WORKERS="none", WEIR_REDIS_URL="http://x", WEIR_MASTER_KEY="short"),
        "WEIR_REDIS_URL",
        "WEIR_MASTER_KEY",
        "WEIR_WORKERS",
    )
    refuses(environment(tmp_path / "c", WEIR_REDIS_URL=f"redis://{address}"), "WEIR_REDIS_URL")
    file = tmp_path / "file"
    file.write_text("")
    refuses(environment(file / "data"), "WEIR_DATA_DIR")
    for command, missing in (
        ("gateway", ("WEIR_REDIS_URL", "WEIR_MASTER_KEY")),
        ("ledger", ("WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY")),
        ("admin", ("WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY", "WEIR_ADMIN_TOKEN")),
    ):
        refuses(environment(tmp_path / "d"), *missing, command=command)


def test_a_data_dir_that_cannot_be_written() -> None:
    """Below /proc nobody can make a folder, not even the superuser."""
    refuses(environment(Path("/proc/weir")), "WEIR_DATA_DIR")


def test_a_second_weir_on_the_same_data_says_so(stack: Stack) -> None:
    refuses(environment(Path(stack.env["WEIR_DATA_DIR"])), "already running")
