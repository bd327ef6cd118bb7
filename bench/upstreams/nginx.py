"""nginx, run in a folder: as the upstream, which answers a fixed chat completion; the floor's proxy uses it too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import psutil

from bench.machine import free_port, server

PROMPT_TOKENS = 19
COMPLETION_TOKENS = 10

ANSWER = (
    '{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,'
    '"model":"gpt-4.1-2025-04-14","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can '
    "I assist you today? I am here to help with whatever you need, whether it is a question or a longer task."
    '","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{'
    f'"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{COMPLETION_TOKENS},'
    f'"total_tokens":{PROMPT_TOKENS + COMPLETION_TOKENS},'
    '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,'
    '"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default"}'
).encode()

# One process: nothing else to find, to pin and to measure, and no worker under another user.
_FRAME = """
daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 16000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_buffer_size 512k;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-1; uwsgi_temp_path {folder}/{name}-2; scgi_temp_path {folder}/{name}-3;
  {inside}
}}
"""
_UPSTREAM = """
  server {{
    listen 127.0.0.1:{port} backlog=4096; default_type application/json;
    location / {{ return 200 '{answer}'; }}
    location = /status {{ stub_status; }}
  }}
"""


class Nginx(NamedTuple):
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def upstream(folder: Path, name: str) -> Iterator[Nginx]:
    port = free_port()
    with run(folder, name, port, _UPSTREAM.format(port=port, answer=ANSWER.decode())) as process:
        yield Nginx(port, process)


class AnswerCounter:
    """How many requests an upstream has answered, our own questions not counted."""

    def __init__(self, of: Nginx) -> None:
        self._url = f"{of.url}/status"
        self._asked = 0

    def read(self) -> int:
        self._asked += 1
        page = httpx2.get(self._url, trust_env=False).text
        # "server accepts handled requests\n 3 3 7 \n"
        return int(page.splitlines()[2].split()[2]) - self._asked


@contextmanager
def run(folder: Path, name: str, port: int, inside: str) -> Iterator[psutil.Process]:
    """An nginx with this inside its `http` block, once it listens on `port`."""
    config = folder / f"{name}.conf"
    log = folder / f"{name}.err"
    config.write_text(_FRAME.format(folder=folder, name=name, inside=inside))
    with server(folder, name, ["nginx", "-p", str(folder), "-e", str(log), "-c", str(config)], port) as process:
        yield process
