"""The latency target: `5ms`, `800us`, `0.6x` of the baseline, or `2000/s` images."""

import re
from dataclasses import dataclass
from typing import Literal

from tokensearch.errors import TargetError

Unit = Literal["ms", "us", "s", "x", "/s"]

_GRAMMAR = re.compile(r"(?P<number>[0-9]+([.][0-9]*)?|[.][0-9]+) *(?P<unit>ms|us|s|x|/s)")
_MS_PER = {"ms": 1.0, "us": 1e-3, "s": 1e3}
_FORMS = "5ms, 800us, 0.6x (of the baseline) or 2000/s (images)"


@dataclass(frozen=True, slots=True)
class Target:
    """A latency that a policy should not exceed.

    >>> parse_target("0.5x").limit_ms(batch=8, baseline_ms=40.0)
    20.0
    >>> parse_target("2000/s").limit_ms(batch=8, baseline_ms=40.0)
    4.0
    """

    text: str  # as the user wrote it
    number: float
    unit: Unit

    @property
    def relative(self) -> bool:
        """Whether it is a fraction of the baseline in the same cell."""
        return self.unit == "x"

    def limit_ms(self, *, batch: int, baseline_ms: float) -> float:
        """Longest allowed pass of `batch` images, in milliseconds."""
        if self.unit == "x":
            return self.number * baseline_ms
        if self.unit == "/s":
            return batch / self.number * 1e3
        return self.number * _MS_PER[self.unit]

    def ratio(self, *, batch: int, baseline_ms: float) -> float:
        """Longest allowed pass as a share of the baseline's."""
        return self.limit_ms(batch=batch, baseline_ms=baseline_ms) / baseline_ms

    def __str__(self) -> str:
        return self.text


def parse_target(text: str) -> Target:
    """Read a latency target; TargetError when it is not one.

    >>> parse_target("800us").limit_ms(batch=1, baseline_ms=5.0)
    0.8
    """
    match = _GRAMMAR.fullmatch(text.strip())
    if match is None:
        raise TargetError(f"latency target {text!r} cannot be read; write {_FORMS}")
    number, unit = float(match["number"]), match["unit"]
    if number <= 0:
        raise TargetError(f"latency target {text!r} is not above zero; write {_FORMS}")
    return Target(text.strip(), number, unit)  # type: ignore[arg-type]  # the grammar admits no other unit
