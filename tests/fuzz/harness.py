"""Reads damaged files, and says what became of them."""

import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tests.fuzz.kinds import Kind
from tests.fuzz.mutants import mutants
from tokensearch.errors import TokensearchError

SECONDS = 3.0  # of the processor, for one file


class HungError(BaseException):
    """A file took too long; no `except Exception` holds it up."""


@contextmanager
def watched() -> Iterator[None]:
    """Raise HungError where one file takes more than its seconds of the processor."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HungError(f"more than {SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def outcomes(kind: Kind, count: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """Yield every damaged file with "read", "refused", or what went wrong."""
    for data in mutants(kind.valid(), count, seed, kind.write):
        try:
            with watched(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                became = outcome(kind, data)
        except HungError:
            became = f"hung: {traceback.format_exc(limit=-3)}"
        yield data, became


def outcome(kind: Kind, data: bytes) -> str:
    """Read a file and use it; say what became of it."""
    try:
        kind.use(kind.read(data))
    except TokensearchError as error:
        return "refused" if _is_sentence(str(error)) else f"no sentence: {error}"
    except Exception:  # noqa: BLE001  # which ones there are is the question
        return f"untyped: {traceback.format_exc(limit=-4)}"
    return "read"


def _is_sentence(text: str) -> bool:
    return 0 < len(text) < 2000 and "\n" not in text


def summary(found: Iterator[tuple[bytes, str]]) -> tuple[Counter[str], list[str]]:
    """Count outcomes by their first word, and keep the distinct faults."""
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    for data, became in found:
        counts[became.partition(":")[0]] += 1
        if became not in {"read", "refused"}:
            faults.setdefault(became.strip().splitlines()[-1][:80], f"{became}\n{data[:2000]!r}")
    return counts, list(faults.values())
