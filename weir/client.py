"""The command line's way to the admin API: one answer or one line that says what is wrong."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from ledger import settings
from ledger.settings import Settings, SettingsError

_TIMEOUT_S = 30.0
REFUSED, UNUSABLE = 1, 2


class Failure(Exception):
    """The lines for stderr, and the exit status: 1 if the API refused, 2 if it could not be asked."""

    def __init__(self, *lines: str, status: int = UNUSABLE) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.status = status


class Client:
    """Calls the admin API that the settings, or else the data directory of `weir up`, name."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._http = httpx2.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=_TIMEOUT_S, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        where: str,
        *,
        body: dict[str, Any] | None = None,
        query: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """The answer's JSON; Failure otherwise. Fields and parameters that are None are not sent."""
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        try:
            response = self._http.request(
                method, f"/v1{where}", json=_without_none(body), params=_without_none(query), headers=headers
            )
        except httpx2.HTTPError:
            raise Failure(f"the admin API at {self._url} does not answer; is Weir running?") from None
        try:
            answer = response.json()
        except ValueError:
            raise Failure(
                f"what answers at {self._url} is not Weir's admin API (HTTP {response.status_code})"
            ) from None
        if response.is_success:
            return answer
        title, detail = answer.get("title", f"HTTP {response.status_code}"), answer.get("detail", "")
        raise Failure(f"{title}: {detail}", status=REFUSED)


def path(*parts: str) -> str:
    """A path of the API; what a person typed stays within its part."""
    return "".join(f"/{quote(part, safe=':@')}" for part in parts)


def connect() -> Client:
    """A client by WEIR_ADMIN_URL and WEIR_ADMIN_TOKEN, or by the files that `weir up` keeps in the data directory."""
    try:
        loaded = settings.load()
    except SettingsError as error:
        raise Failure(*error.lines) from None
    url = loaded.admin_url or _kept(loaded, "admin.url", "WEIR_ADMIN_URL")
    token = loaded.admin_token or _kept(loaded, "admin.token", "WEIR_ADMIN_TOKEN")
    return Client(url.rstrip("/"), token)


def _kept(loaded: Settings, name: str, variable: str) -> str:
    file = Path(loaded.data_dir) / name
    try:
        text = file.read_text().strip()
    except OSError:
        text = ""
    if not text:
        raise Failure(f"{variable} is not set and {file} is not there; start Weir with `weir up`, or set {variable}")
    return text


def _without_none(values: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else {name: value for name, value in values.items() if value is not None}
