"""T1: the books in any order of calls, against a model of a page, on every server (`tests/lua/test_model.py`)."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults import options
from tests.faults.options import Tally, asked
from tests.faults.servers import Kind, RedisServer
from tests.lua.test_model import Machine

EXAMPLES, STEPS = asked(full=500, short=50), 40


def test_t1_model(kind: Kind, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    redis = RedisServer(kind, tmp_path / "redis", "--appendonly", "no")

    class Counted(Machine):
        """One that tells how often it was begun."""

        def __init__(self) -> None:
            super().__init__()
            tally.add("examples")

    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None, suppress_health_check=checks
    )
    with redis:
        redis.spawn()
        loop.run_until_complete(redis.ready())
        monkeypatch.setattr(Machine, "url", redis.url)
        monkeypatch.setattr(Machine, "loop", loop, raising=False)
        run_state_machine_as_test(seed(options.SEED)(Counted), settings=profile)
    loop.close()
    tally.note(server=kind.name)
    tally.at_least(examples=EXAMPLES)
    tally.check()
