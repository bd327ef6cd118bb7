"""`weir doctor`: what the servers at hand can promise, what loses money, and sealing anew after a key rotation."""

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path

from ledger import compiled
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.vault import Vault
from tests.stack import WEIR, Stack, running_stack


def doctor(stack: Stack, *arguments: str, **more: str) -> tuple[int, dict[str, tuple[bool, str]]]:
    """Exit status, and what was found by name."""
    command = [*WEIR, "doctor", "--json", *arguments]
    # A filesystem of its own, as a volume is: inside a container a folder that is not on one goes with it.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as volume:
        env = {**stack.env, "WEIR_SPILL_DIR": volume, **more}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    found = {entry["what"]: (entry["good"], entry["said"]) for entry in json.loads(done.stdout)}
    return done.returncode, found


async def test_a_healthy_installation_and_one_that_can_lose_charges(stack: Stack) -> None:
    status, found = doctor(stack)
    assert (status, [what for what, (good, _) in found.items() if not good]) == (0, [])
    assert found["partitions"] == (True, "256 of 256 open")
    assert found["appendfsync"] == (True, "always")
    assert found["request path"][1].startswith("compiled" if compiled.found else "interpreted")
    text = subprocess.run([*WEIR, "doctor"], env=stack.env, capture_output=True, text=True, check=False).stdout
    assert "ok    appendfsync" in text
    redis = client(stack.stores["redis"])
    await redis.config_set("appendfsync", "everysec")
    status, found = doctor(stack)
    assert status == 1
    assert not found["appendfsync"][0]
    assert "power cut" in found["appendfsync"][1]
    await redis.config_set("appendfsync", "always")
    await redis.aclose()


async def test_a_new_master_key_seals_everything_anew(tmp_path: Path) -> None:
    with running_stack(tmp_path / "data") as stack:
        await stack.model("http://127.0.0.1:9")
        old = stack.master_key
        new = base64.b64encode(os.urandom(32)).decode()
        status, found = doctor(stack, WEIR_MASTER_KEY=new)
        assert (status, found["secrets"][0]) == (1, False)
        assert "WEIR_MASTER_KEY_PREVIOUS" in found["secrets"][1]
        rotated = {"WEIR_MASTER_KEY": new, "WEIR_MASTER_KEY_PREVIOUS": old}
        status, found = doctor(stack, **rotated)
        assert (status, found["secrets"]) == (1, (False, "2 under the previous master key: weir doctor --rewrap"))
        status, found = doctor(stack, "--rewrap", **rotated)
        assert (status, found["secrets"]) == (0, (True, "2 sealed anew"))
        assert doctor(stack, WEIR_MASTER_KEY=new)[0] == 0
        cold = ColdBook(stack.stores["mongo"])
        upstream = await cold.upstreams.find_one()
        assert upstream is not None
        vault = Vault(base64.b64decode(new))
        assert vault.open(upstream["credential"], purpose=f"upstreams/{upstream['_id']}/credential") == b"sk-upstream"
        await cold.close()


def test_servers_that_are_away_are_a_line_each(stack: Stack) -> None:
    env = {"WEIR_REDIS_URL": "redis://127.0.0.1:1", "WEIR_MONGO_URL": "mongodb://127.0.0.1:1/?replicaSet=x"}
    status, found = doctor(stack, **env)
    assert status == 1
    assert "check WEIR_REDIS_URL" in found["Redis"][1]
    assert "check WEIR_MONGO_URL" in found["MongoDB"][1]
