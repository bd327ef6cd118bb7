"""What this worker knows of its upstreams: how busy and how quick each is, and which to leave alone for a while.

Three reasons to leave one alone. A 429 sets a cooldown for the model there, for as long as the provider says. A 401 or 403
takes the credential out until the operator changes it. Failures open a circuit: after a few in a row the model is not sent
there, until a jittered pause is over and one probe shows that it answers again. Beside them there are the operator's limits
(limits.py), and what a provider says is left (quota.py).

Nothing here is shared between workers: each finds out within a few requests, and none can put another's traffic at risk.
"""

import random
from collections.abc import Callable

from gateway.upstream.client import Spot
from gateway.upstream.limits import Rooms
from gateway.upstream.quota import LONGEST_S, Left, Quota, Tokens

FAILURES_TO_OPEN = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
DEFAULT_COOLDOWN_S, LONGEST_COOLDOWN_S = 1.0, LONGEST_S
REFUSED_FOR_S = 60.0
_NEW = 0.2  # how much a new measurement counts for
_UNKNOWN_S = 0.001  # an upstream that was never asked looks quick, so that it is asked


NO_TOKENS = Tokens()


class Circuit:
    """Closed: requests pass. Open: none does, until `until`; then one probe at a time decides."""

    def __init__(self) -> None:
        self.failures = 0
        self.pauses = 0
        self.until = 0.0
        self.probing = False

    @property
    def open(self) -> bool:
        return self.failures >= FAILURES_TO_OPEN

    def admits(self, now: float) -> bool:
        return not self.open or (now >= self.until and not self.probing)

    def begin(self) -> None:
        """A request goes there; if the circuit is open it is the probe."""
        self.probing = self.probing or self.open

    def good(self) -> None:
        self.failures = self.pauses = 0
        self.probing = False

    def bad(self, now: float) -> None:
        self.failures += 1
        self.probing = False
        if self.open:
            pause = min(FIRST_PAUSE_S * 2**self.pauses, LONGEST_PAUSE_S)
            self.pauses = min(self.pauses + 1, 16)
            self.until = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that workers do not probe as one


class Health:
    """Everything that this worker has noticed. `clock` is the loop's time, in seconds; `share`: among how many workers the
    upstreams' limits are divided.
    """

    def __init__(self, clock: Callable[[], float], *, share: int = 1) -> None:
        self._clock = clock
        self.rooms = Rooms(clock, share=share)
        self._quotas: dict[Spot, Quota] = {}
        self._heeds_quotas = False
        self._in_flight: dict[str, int] = {}
        self._latency_s: dict[str, float] = {}
        self._cooling: dict[Spot, float] = {}
        self._refused: dict[str, tuple[str, float]] = {}
        self._circuits: dict[Spot, Circuit] = {}

    @property
    def bounded(self) -> bool:
        """Whether any upstream is at a limit, cools down or is short of quota, or ever was: else there is nothing to ask."""
        return bool(self.rooms) or bool(self._cooling) or self._heeds_quotas

    def usable(self, spot: Spot, credential: str) -> bool:
        """Whether a request may be sent there now, as far as what it did is concerned."""
        return self._cooling.get(spot, 0.0) <= self._clock() and self.works(spot, credential)

    def works(self, spot: Spot, credential: str) -> bool:
        """Whether it takes the credential and answers, as far as is known; it may have asked to be left alone."""
        circuit = self._circuits.get(spot)
        return not self._is_refused(spot.upstream, credential) and (circuit is None or circuit.admits(self._clock()))

    def is_well(self, spot: Spot, credential: str) -> bool:
        """Whether the last that was seen of it was good; a pause that is over proves nothing yet."""
        circuit, refused = self._circuits.get(spot), self._refused.get(spot.upstream)
        accepted = refused is None or refused[0] != credential
        return accepted and not self.cools_for_s(spot) and not (circuit is not None and circuit.open)

    def cools_for_s(self, spot: Spot) -> float:
        """How long it wants to be left alone."""
        return max(self._cooling.get(spot, 0.0) - self._clock(), 0.0)

    def _is_refused(self, upstream: str, credential: str) -> bool:
        refused, until = self._refused.get(upstream, ("", 0.0))
        return refused == credential and self._clock() < until

    def wait_s(self, spot: Spot) -> float:
        """How long until it may be usable again, as far as is known."""
        circuit = self._circuits.get(spot)
        opens_at = circuit.until if circuit is not None and circuit.open else 0.0
        return max(self.cools_for_s(spot), opens_at - self._clock())

    def room_in_s(self, spot: Spot, tokens: Tokens) -> float:
        """How long until the operator's limits have room for it; 0 if now, infinite if another request must end first."""
        return self.rooms.wait_s(spot.upstream, self._in_flight.get(spot.upstream, 0), tokens.total)

    def quota_in_s(self, spot: Spot, tokens: Tokens) -> float:
        """How long until the provider's quota covers it; 0 if now."""
        quota = self._quotas.get(spot)
        return 0.0 if quota is None else quota.wait_s(tokens, self._clock())

    def told(self, spot: Spot, said: dict[bytes, Left]) -> None:
        """A provider said what is left of the operator's quota there."""
        self._heeds_quotas = True
        self._quota(spot).learn(said, self._clock())

    def _quota(self, spot: Spot) -> Quota:
        found = self._quotas.get(spot)
        if found is None:
            found = self._quotas[spot] = Quota()
        return found

    def load(self, upstream: str) -> float:
        """How long a request would wait there, about: what is under way, times how long each takes."""
        return (self._in_flight.get(upstream, 0) + 1) * self._latency_s.get(upstream, _UNKNOWN_S)

    def begin(self, spot: Spot, tokens: Tokens = NO_TOKENS) -> None:
        """A request is sent, quoted at so many tokens; `end` must follow."""
        self.rooms.begin(spot.upstream, tokens.total)
        self._quota(spot).begin(tokens)
        self._in_flight[spot.upstream] = self._in_flight.get(spot.upstream, 0) + 1
        circuit = self._circuits.get(spot)
        if circuit is not None:
            circuit.begin()

    def end(self, spot: Spot, tokens: Tokens = NO_TOKENS, *, used: int = 0) -> None:
        """It is over, however it went, and has used so many tokens."""
        self.rooms.end(spot.upstream, tokens.total, used)
        self._quota(spot).end(tokens)
        self._in_flight[spot.upstream] -= 1
        circuit = self._circuits.get(spot)
        if circuit is not None:
            circuit.probing = False

    def answered(self, spot: Spot, seconds: float) -> None:
        """It began to answer, so many seconds after it was asked."""
        before = self._latency_s.get(spot.upstream, seconds)
        self._latency_s[spot.upstream] = before + _NEW * (seconds - before)
        self._refused.pop(spot.upstream, None)
        circuit = self._circuits.get(spot)
        if circuit is not None:
            circuit.good()

    def failed(self, spot: Spot) -> None:
        """No answer, or one that says that it is broken."""
        self._circuits.setdefault(spot, Circuit()).bad(self._clock())

    def cool(self, spot: Spot, seconds: float | None) -> None:
        """It asked to be left alone, for so long if it said."""
        pause = DEFAULT_COOLDOWN_S if seconds is None else min(max(seconds, 0.0), LONGEST_COOLDOWN_S)
        self._cooling[spot] = max(self._cooling.get(spot, 0.0), self._clock() + pause)

    def refuse(self, upstream: str, credential: str) -> None:
        """Its credential is not accepted: it is out until it has another, but for a try once in a while, because the
        operator may have mended it with the provider.
        """
        self._refused[upstream] = (credential, self._clock() + REFUSED_FOR_S)


class Budget:
    """How many retries there may be: a share of the requests, and a few to begin with, so that a provider that is down is
    not also hammered.
    """

    def __init__(self, *, share: float = 0.1, most: float = 100.0) -> None:
        self._share = share
        self._most = most
        self._left = most

    def earn(self) -> None:
        """A request came."""
        self._left = min(self._left + self._share, self._most)

    def spend(self) -> bool:
        """Whether there may be a retry now; if so it is taken."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
