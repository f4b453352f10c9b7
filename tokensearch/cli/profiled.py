"""Profiles of what a command was given: those that exist, and those that are taken on the spot."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from tokensearch.cli.console import caution, err
from tokensearch.files import make_folder, refuse_link
from tokensearch.policy import Policy, preset
from tokensearch.profiles import Profile

if TYPE_CHECKING:
    from tokensearch.cli.asked import Asked
    from tokensearch.cli.progress import Lines, Live
    from tokensearch.cli.timed import Timed

# Rounds: below the least an interval says little; the most is never reached before the seconds.
WARMUP_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS = 3, 12, 5000  # the help of --seconds names the least
# A diff is done early when its ratio is known so well, and the ledger closes so surely.
RATIO_REACH, CLOSING_REACH = 0.005, 0.02
TRACES = "tensorboard"  # the folder, within that of the profiles
AGAIN = " again"  # what a side is called that is compared with itself


def profiles_of(
    sides: Sequence[Policy | Profile | str],
    *,
    names: Sequence[str],
    asked: "Asked",
    seconds: float,
    folder: Path | None = None,
) -> tuple[Profile, ...]:
    """Return a profile for every side; those that are policies or presets are taken in turn."""
    fresh: dict[str, Policy | str] = {}
    keys = []
    for name, side in zip(names, sides, strict=True):
        keys.append(f"{name}{AGAIN}" if name in fresh else name)
        if not isinstance(side, Profile):
            fresh[keys[-1]] = side
    taken = _taken(fresh, asked, seconds, folder) if fresh else {}
    return tuple(
        side if isinstance(side, Profile) else taken[key]
        for key, side in zip(keys, sides, strict=True)
    )


def _taken(
    sides: Mapping[str, Policy | str], asked: "Asked", seconds: float, folder: Path | None
) -> dict[str, Profile]:
    """Profile policies and presets in turn, with progress on stderr."""
    from tokensearch.cli.progress import listener
    from tokensearch.measure import Effort
    from tokensearch.profiling import Plan, profile

    ready = asked.timed()
    say_launches(ready)
    policies = {name: _policy(side, ready, asked) for name, side in sides.items()}
    traces = None if folder is None else _unlinked(folder / TRACES, policies)
    effort = Effort(WARMUP_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS, seconds)
    with listener(err) as watcher:
        watcher.stage(f"profiling {' and '.join(policies)}", unit="s")
        found = profile(
            ready.model,
            policies,
            images=ready.images,
            cell=ready.cell,
            plan=Plan(effort, seed=asked.seed),
            folder=traces,
            enough=_enough,
            tell=_Telling(watcher, seconds),
            stage=watcher.stage,
        )
    return {one.name: one for one in found}


def say_launches(ready: "Timed") -> None:
    """Say so if a pass of the un-reduced model waits for its launches."""
    from tokensearch.search.timing import Timing

    found = Timing(ready.model, ready.images, ready.cell, 0).launching
    if found is not None and found.bound:
        caution(found.sentence)


class _Telling:
    """Says how far the timing is: in seconds, and then in rounds where those were too few."""

    def __init__(self, watcher: "Live | Lines", seconds: float) -> None:
        self._watcher, self._seconds = watcher, seconds
        self._going_on = False

    def __call__(self, rounds: int, spent: float) -> None:
        """Hear the rounds that were counted, and the seconds that all took."""
        over = spent >= self._seconds
        if over and not self._going_on and rounds < LEAST_ROUNDS:
            self._going_on = True
            self._watcher.stage("going on to the fewest that an interval takes", unit="rounds")
        if self._going_on:
            left_s = spent / (WARMUP_ROUNDS + rounds) * (LEAST_ROUNDS - rounds)
            done, total, text = rounds, LEAST_ROUNDS, ""
        else:
            left_s, total = max(0.0, self._seconds - spent), ceil(self._seconds)
            done, text = total if over else int(spent), f"{rounds} rounds"
        self._watcher.progress(done=done, total=total, seconds_left=left_s, text=text)


def _unlinked(traces: Path, names: Iterable[str]) -> Path:
    """Refuse, before anything is timed, a folder of traces that leads elsewhere."""
    from tokensearch.measure.tracer import worker

    for place in (traces, *(traces / worker(name) for name in names)):
        refuse_link(place)
        make_folder(place)
    return traces


def _policy(side: Policy | str, ready: "Timed", asked: "Asked") -> Policy:
    """Return the policy of a side for the model at hand, and say so where it was rescaled."""
    from tokensearch.report.presets import is_rescaled, rescaled_line

    if isinstance(side, Policy):
        return ready.fitting(side)
    chosen = preset(side, ready.spec, rescale=asked.rescale)
    if is_rescaled(chosen):
        caution(rescaled_line(chosen))
    return ready.fitting(chosen)


def _enough(profiles: tuple[Profile, ...]) -> bool:
    """Whether a pair is known well enough to end before the seconds."""
    from tokensearch.ledger import ledger

    if len(profiles) != 2:
        return False
    found = ledger(*profiles)
    residual = found.residual.ms
    closes = (residual.high - residual.low) / 2 <= CLOSING_REACH * abs(found.difference.value)
    return closes and (found.ratio.high - found.ratio.low) / 2 <= RATIO_REACH
