"""The money, and the words for it: what the gateway and the admin API both speak."""

from ledger import compiled

__version__ = "0.1.0"

compiled.install()
