"""The floor: nginx that passes on, and does nothing else."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.contest import Contestant, Upstreams, Way
from bench.machine import free_port
from bench.upstreams import nginx

_INSIDE = """
  upstream plain {{ server {plain}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream stream {{ server {stream}; keepalive 1024; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://plain; }}
    location /stream/ {{ proxy_pass http://stream/; }}
  }}
"""


@contextmanager
def run(folder: Path, upstreams: Upstreams) -> Iterator[Contestant]:
    port = free_port()
    plain, stream = urlsplit(upstreams.plain).netloc, urlsplit(upstreams.stream).netloc
    with nginx.run(folder, "nginx", port, _INSIDE.format(port=port, plain=plain, stream=stream)) as process:
        url = f"http://127.0.0.1:{port}"
        yield Contestant(
            "nginx",
            _version(),
            Way(f"{url}/v1/chat/completions", "sk-none"),
            Way(f"{url}/stream/v1/chat/completions", "sk-none"),
            [process],
        )


def _version() -> str:
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2].split()[0]
