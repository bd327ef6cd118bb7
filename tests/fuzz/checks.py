"""What is checked of hostile bytes, by name."""

from collections.abc import Callable, Mapping

from tests.fuzz import answers, asks, cutters, forms, frames, paths
from tests.fuzz.tape import LENGTH, Tape

CHECKS: Mapping[str, Callable[[Tape], None]] = {
    "answers": answers.check,
    "requests": asks.check,
    "forms": forms.check,
    "cutters": cutters.check,
    "paths": paths.check,
    "frames": frames.check,
}


def failure(name: str, data: bytes) -> tuple[type[Exception], str] | None:
    """How a check fails on a case: the exception's type and where it was raised; None if it does not."""
    try:
        CHECKS[name](Tape(data))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        return type(error), f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
    return None


def shrunk(name: str, data: bytes) -> bytes:
    """A plainer case that fails in the same way: shorter, or with more zeros."""
    wanted = failure(name, data)
    assert wanted is not None
    data = data[:LENGTH]
    while True:
        shorter = (data[:n] for n in range(len(data)))
        plainer = (
            data[:n] + bytes([value]) + data[n + 1 :]
            for n in range(len(data))
            for value in (0, data[n] // 2)
            if data[n]
        )
        better = next((each for each in (*shorter, *plainer) if failure(name, each) == wanted), None)
        if better is None:
            return data
        data = better
