"""A running SDK: jobs in, what its user sees out."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.clients import sdks
from tests.clients.sdks import Sdk

WITHIN_S = 60.0


class Driver:
    """A process with one version of one SDK, which does one job after the other."""

    def __init__(self, sdk: Sdk, folder: Path) -> None:
        command, environment = sdks.driver(sdk, folder)
        self.sdk = sdk
        self._complaints = (folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=sdks.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self._about: dict[str, Any] | None = None

    async def about(self) -> dict[str, Any]:
        """The version that the driver found, said once when it starts."""
        if self._about is None:
            self._about = await self._within(self._read)
        return self._about

    async def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the SDK's user sees of one call."""
        about = await self.about()
        assert about["version"] == self.sdk.version, f"{self.sdk} is installed as {about}"
        return await self._within(lambda: self._ask(job))

    def stop(self) -> None:
        """Nobody asks any more, so it ends."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._complaints.close()

    async def _within(self, do: Any) -> dict[str, Any]:
        """In time, or the driver is ended, which ends the wait."""
        try:
            return dict(await asyncio.wait_for(asyncio.to_thread(do), WITHIN_S))
        except TimeoutError:
            self._process.kill()
            raise

    def _ask(self, job: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._complaints.seek(0)
            raise AssertionError(f"the driver of {self.sdk} has died: {self._complaints.read()}")
        return json.loads(line)
