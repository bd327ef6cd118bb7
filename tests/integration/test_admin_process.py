"""`python -m admin_api` as a process, and the operator's verbs against it."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ledger.cold import ColdBook
from ledger.link import Link
from tests.conftest import MASTER_KEY
from tests.integration.admin import TOKEN, UPSTREAM
from weir.bundled import free_port


@pytest.fixture
async def admin_url(mongo_url: str, redis_url: str, cold: ColdBook, opened: Link) -> AsyncIterator[str]:
    """The process on a socket that it inherits, ready when it says so; it must end cleanly."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready, tell = os.pipe()
    for fd in (listener.fileno(), tell):
        os.set_inheritable(fd, True)
    environ = {
        **_environ(mongo_url, redis_url),
        "WEIR_LISTEN_FD": str(listener.fileno()),
        "WEIR_READY_FD": str(tell),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "admin_api"], env=environ, pass_fds=(listener.fileno(), tell), stderr=subprocess.PIPE
    )
    os.close(tell)
    with child, os.fdopen(ready, "rb") as said:
        try:
            assert said.readline() == b"ready\n"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.close()
            child.send_signal(signal.SIGTERM)
            assert child.stderr is not None
            errors = child.stderr.read()
        assert (child.wait(20), errors) == (0, b"")


def _environ(mongo_url: str, redis_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "WEIR_MONGO_URL": mongo_url,
        "WEIR_REDIS_URL": redis_url,
        "WEIR_MASTER_KEY": base64.b64encode(MASTER_KEY).decode(),
        "WEIR_ADMIN_TOKEN": TOKEN,
    }


def run(*words: str, environ: dict[str, str], status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A `weir` command, with nothing in its environment but this."""
    command = [sys.executable, "-m", "weir", *words]
    environ = {"PATH": os.environ["PATH"], "COLUMNS": "200", **environ}
    done = subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_every_missing_setting_is_one_line() -> None:
    environ = {"PATH": os.environ["PATH"], "WEIR_ADMIN_ADDR": "nowhere"}
    done = subprocess.run([sys.executable, "-m", "admin_api"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 5
    for name in ("REDIS_URL", "MONGO_URL", "MASTER_KEY", "ADMIN_TOKEN", "ADMIN_ADDR"):
        assert f"WEIR_{name} " in done.stderr


async def test_start_up_failures_are_one_line(mongo_url: str, redis_url: str, cold: ColdBook, opened: Link) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for change, line in (
            ({"WEIR_ADMIN_ADDR": f"127.0.0.1:{taken.getsockname()[1]}"}, "cannot listen on"),
            ({"WEIR_MASTER_KEY": base64.b64encode(bytes(32)).decode()}, "which is not at hand"),
        ):
            environ = {**_environ(mongo_url, redis_url), **change}
            command = [sys.executable, "-m", "admin_api"]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
            assert line in done.stderr


async def test_the_process_serves(admin_url: str) -> None:
    async with httpx2.AsyncClient(base_url=admin_url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        assert (await http.get("/readyz")).json() == {"redis": "ok", "mongodb": "ok"}
        made = await http.post("/v1/accounts", json={"name": "a"})
        assert made.status_code == 201
        assert (await http.get("/v1/accounts", headers={"authorization": "Bearer no"})).status_code == 401


async def test_a_day_of_an_operator(admin_url: str, tmp_path: Path) -> None:
    (tmp_path / "admin.url").write_text(admin_url + "\n")
    (tmp_path / "admin.token").write_text(TOKEN + "\n")
    environ = {"WEIR_DATA_DIR": str(tmp_path)}

    def weir(*words: str, status: int = 0, stdin: str = "") -> str:
        return run(*words, environ=environ, status=status, stdin=stdin).stdout

    def answer(*words: str, stdin: str = "") -> Any:
        return json.loads(weir(*words, "--json", stdin=stdin))

    assert "no accounts yet" in weir("account", "list")
    account = answer("account", "create", "Acme", "--concurrency", "4")["id"]
    assert answer("credit", "add", account, "12.50", "--reference", "inv-1")["status"] == "applied"
    assert "$12.50" in weir("account", "show", account)
    assert "$12.50" in weir("account", "list")
    shown = weir("key", "issue", account, "--name", "prod", "--model", "gpt-x", "--daily-cap", "3")
    assert "weir_" in shown
    assert "only time" in shown
    (key,) = answer("key", "list", account)["items"]
    assert (key["name"], key["models"], key["daily_cap_usd"]) == ("prod", ["gpt-x"], "3.00")
    assert key["id"] in weir("key", "list", account)
    new = answer("key", "rotate", account, key["id"], "--grace-seconds", "60")
    assert new["line"] == key["id"]
    assert "revoked" in weir("key", "revoke", account, new["id"])
    added = ("upstream", "add", "openai", "--provider", "openai", "--base-url", UPSTREAM["base_url"])
    assert "sk-" not in weir(*added, stdin=UPSTREAM["credential"] + "\n")
    model = ("model", "add", "gpt-x", "--upstream", "openai=gpt-x-2026", "--input", "0.15", "--output", "0.60")
    made = answer(*model, "--max-output-tokens", "16384", "--rate", "cache_write_5m=0.2", "--markup", "2")
    assert made["rates_picos"] == {"input": 300_000, "output": 1_200_000, "cache_write_5m": 400_000}
    assert made["upstreams"] == [{"upstream": "openai", "model": "gpt-x-2026"}]
    assert "$0.15" in weir(*model, "--max-output-tokens", "16384")
    again = (
        "model",
        "add",
        "gpt-y",
        "--upstream",
        "openai",
        "--input",
        "1",
        "--output",
        "2",
        "--max-output-tokens",
        "9",
    )
    spare = answer(*again, "--fallback", "gpt-x", "--queue-size", "7", "--queue-timeout", "2.5")
    assert (spare["fallbacks"], spare["queue_size"], spare["queue_timeout_s"]) == (["gpt-x"], 7, 2.5)
    assert "gpt-x" in weir(*again, "--fallback", "gpt-x")
    limited = ("--requests-per-minute", "60", "--concurrency", "5", "--first-byte-timeout", "20")
    second = ("upstream", "add", "second", *added[3:], *limited)
    shown = weir(*second, stdin=UPSTREAM["credential"] + "\n")
    assert "requests per minute  60" in shown
    assert "concurrency          5" in shown
    assert "no usage" in weir("usage", account)
    assert "no usage" in weir("usage", account, "--by", "model")
    weir("usage", status=2)
    assert "no plans yet" in weir("plan", "list")
    plan = answer("plan", "set", "gold", "--free-requests", "5", "--markup", "1.5", "--concurrency", "3")
    assert (plan["free_requests"], plan["markup"], plan["limits"]) == (5, "1.50", {"concurrency": 3})
    assert "charge_hold" in weir("plan", "set", "gold", "--on-abandoned", "charge_hold", "--retention-days", "7")
    assert "gold" in weir("plan", "list")
    assert answer("account", "create", "Beta", "--plan", "gold")["plan"] == "gold"
    assert answer("account", "close", account)["status"] == "closed"
    refused = run("account", "show", "acct_x/../y", environ=environ, status=1)
    assert refused.stderr.startswith("Not Found: ")
    assert run("credit", "add", account, "1", environ=environ, status=1).stderr == "Conflict: the account is closed\n"


def test_a_command_without_weir_is_one_line(tmp_path: Path) -> None:
    bare = run("account", "list", environ={"WEIR_DATA_DIR": str(tmp_path)}, status=2)
    assert bare.stderr.startswith("WEIR_ADMIN_URL is not set and ")
    url = f"http://127.0.0.1:{free_port()}"
    alone = run("account", "list", environ={"WEIR_ADMIN_URL": url, "WEIR_ADMIN_TOKEN": "t"}, status=2)
    assert alone.stderr == f"the admin API at {url} does not answer; is Weir running?\n"
    wrong = run("account", "list", environ={"WEIR_ADMIN_URL": "nonsense"}, status=2)
    assert wrong.stderr.startswith("WEIR_ADMIN_URL is not a URL")
