"""A clock that follows a script, so that no test waits and no test depends on the machine."""

from collections.abc import Callable, Iterator

import numpy as np

from tokensearch.measure import Run


class FakeClock:
    """Calls `run`, then reports the next duration of the model that `run` says it is.

    `machine` says how slow the machine is at each turn, whoever's it is; 1 is its usual speed.
    """

    warm = True

    def __init__(
        self, *, machine: Callable[[int], float] = lambda _: 1.0, **scripts_ms: Iterator[float]
    ) -> None:
        self._machine = machine
        self._scripts_ms = scripts_ms
        self.turns: list[str] = []  # who was timed, in order

    def time_ms(self, run: Run) -> float:
        who = str(run())
        self.turns.append(who)
        return next(self._scripts_ms[who]) * self._machine(len(self.turns) - 1)


def baseline() -> str:
    return "baseline"


def candidate() -> str:
    return "candidate"


def noisy(scale_ms: float, *, seed: int, spread: float = 0.03) -> Iterator[float]:
    """Endless passes around `scale_ms`, skewed as real ones are: log-normal."""
    random = np.random.default_rng(seed)
    while True:
        yield from (scale_ms * np.exp(spread * random.standard_normal(64))).tolist()


def steady(
    scale_ms: float = 4.0, *, change: Callable[[int], float] = lambda _: 1.0
) -> Iterator[float]:
    """Endless passes that alternate within 1 %, times `change(number of the pass)`."""
    number = 0
    while True:
        yield scale_ms * (1.0 + 0.01 * (number % 2)) * change(number)
        number += 1
