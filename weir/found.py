"""The settings of a command that works on a Weir which may be running: the environment's, else the data directory's."""

import dataclasses
from pathlib import Path

import msgspec

from ledger import vault
from ledger.process import fail, settings_or_exit
from ledger.settings import Settings


def settings_of_this_machine() -> Settings:
    """Settings with both stores' URLs and the master key; one line and exit status 2 if they are not to be found."""
    settings = settings_or_exit()
    remembered = _remembered(settings.data_dir)
    redis_url = settings.redis_url or remembered.get("redis", "")
    mongo_url = settings.mongo_url or remembered.get("mongo", "")
    if not redis_url or not mongo_url:
        raise fail(f"no Weir has run on {settings.data_dir}; set WEIR_REDIS_URL and WEIR_MONGO_URL, or WEIR_DATA_DIR")
    key = settings.master_key
    kept = settings.data_dir / "master.key"
    if key is None and kept.exists():
        key = vault.parse_master_key(kept.read_text())
    if key is None:
        raise fail("WEIR_MASTER_KEY is not set; make one with: head -c 32 /dev/urandom | base64")
    return dataclasses.replace(settings, redis_url=redis_url, mongo_url=mongo_url, master_key=key)


def _remembered(folder: Path) -> dict[str, str]:
    path = folder / "stores.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
