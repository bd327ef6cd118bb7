"""Where `make bench` has installed the peers; each in a place of its own."""

import sys
from pathlib import Path

PEERS = Path(sys.prefix) / "peers"
