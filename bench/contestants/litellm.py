"""LiteLLM's proxy, one worker: no database, no Redis, no metering; its master key is the caller's."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contest import MODEL, Contestant, Upstreams, Way
from bench.contestants.peers import PEERS
from bench.machine import family, free_port, server

_BIN = PEERS / "litellm" / "bin"
_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{plain}/v1", api_key: sk-up}}
  - model_name: {model}-stream
    litellm_params: {{model: openai/{model}, api_base: "{stream}/v1", api_key: sk-up}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


@contextmanager
def run(folder: Path, upstreams: Upstreams) -> Iterator[Contestant]:
    port, key = free_port(), f"sk-{secrets.token_hex(24)}"
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, plain=upstreams.plain, stream=upstreams.stream))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")},
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # what it ships with, instead of asking the network
        "HOME": str(folder),
    }
    command = [str(_BIN / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with server(folder, "litellm", [*command, "--num_workers", "1"], port, environment=environment) as process:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield Contestant(
            "LiteLLM",
            _version(),
            Way(url, key),
            Way(url, key, f"{MODEL}-stream"),
            family(process),
            rests=True,
            slow=True,
        )


def _version() -> str:
    ask = "import importlib.metadata; print(importlib.metadata.version('litellm'))"
    return subprocess.run([_BIN / "python", "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
