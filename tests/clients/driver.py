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
        self._folder = folder
        self._programs = 0
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
        """What the SDK's user sees of one call, which is named as in Python."""
        about = await self.about()
        assert about["version"] == self.sdk.version, f"{self.sdk} is installed as {about}"
        if "call" in job and self.sdk.language == "node":
            job = {**job, "call": _camel(job["call"])}
        return await self._within(lambda: self._ask(job))

    async def run(self, program: str, environment: dict[str, str] | None = None) -> str:
        """What a program prints that uses the SDK."""
        self._programs += 1
        suffix = "py" if self.sdk.language == "python" else "mjs"
        path = self._folder / f"program{self._programs}.{suffix}"
        path.write_text(program)
        return str((await self.ask({"program": str(path), "environment": environment or {}}))["printed"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._complaints):
            if pipe is not None:
                pipe.close()

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


def _camel(call: str) -> str:
    first, *rest = call.split("_")
    return first + "".join(word.capitalize() for word in rest)
