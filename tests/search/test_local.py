"""The local search, on landscapes whose best is known."""

from collections.abc import Callable
from dataclasses import replace
from math import log
from random import Random
from typing import Any

import numpy as np
import optuna
import pytest

from tokensearch.front import Point, hypervolume
from tokensearch.policy import ModelSpec, Policy, Prune, mac_share
from tokensearch.search import load_space
from tokensearch.search.early_stopping import FINEST_LOSS, LEAST_LOSS
from tokensearch.search.sampler.local import (
    LEAST_GAIN,
    LocalSampler,
    Observation,
    count_loss_from,
    front_of,
    hypervolume_gains,
    observe,
)
from tokensearch.search.sampler.surrogate import features

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)
SPACE = load_space("default")


def log_loss(policy: Policy) -> float:
    """Early cuts hurt more, and pooling less than pruning: smooth, and made up."""
    loss, left = 1e-4, DEIT.patch_tokens
    for step in policy.steps:
        harm = (1 - step.keep / left) ** 2 * (12 - step.block) / 12
        loss += harm * (0.5 if step.op == "pool" else 1.0) * 196 / (step.keep + 4)
        left = step.keep
    return float(np.log(loss))


def draw_policy(random: Random) -> Policy:
    chosen = {name: random.choice(values) for name, values in SPACE.dimensions(DEIT).items()}
    return SPACE.build(chosen, DEIT)


def observation_of(policy: Policy) -> Observation:
    return observe(
        policy, log_loss=log_loss(policy), noise=0.0, ratio=mac_share(policy), complete=True
    )


def search(
    sampler: Callable[[list[Observation]], optuna.samplers.BaseSampler], trials: int
) -> list[Observation]:
    known = [observation_of(Policy(DEIT))]
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(known))
    for _ in range(trials):
        trial = study.ask()
        found = observation_of(SPACE.suggest(trial, DEIT))
        known.append(found)
        study.tell(trial, [-found.log_loss, found.ratio])
    return known


def local(known: list[Observation], *, target_ratio: float = 1.0, seed: int = 0) -> LocalSampler:
    return LocalSampler(
        SPACE,
        DEIT,
        observations=lambda: known,
        ratio=mac_share,
        target_ratio=lambda: target_ratio,
        smallest_loss=FINEST_LOSS,
        seed=seed,
    )


def test_expected_gains_are_those_of_many_throws() -> None:
    known = [
        observation_of(Policy(DEIT)),
        *(observation_of(Policy(DEIT, (Prune(3, keep),))) for keep in (20, 80)),
    ]
    ratios, mean, deviation = np.array([0.45, 0.9]), np.array([-1.0, -6.0]), np.array([1.5, 1.0])

    found = hypervolume_gains(known, ratios, mean, deviation, target_ratio=1.0, least=LEAST_LOSS)

    at = np.linspace(0, 1, 65)[1:]
    worst = max(one.log_loss for one in known)
    best = np.array([min([o.log_loss for o in known if o.ratio <= t], default=worst) for t in at])
    best = np.maximum(best, log(LEAST_LOSS))
    throws = np.random.default_rng(0).normal(mean, deviation, (20_000, 2))
    for place in range(2):
        reached = np.maximum(throws[:, place, None], log(LEAST_LOSS))
        gain = np.maximum(0, best - reached) * (ratios[place] <= at)
        assert found[place] == pytest.approx(gain.mean(), rel=0.05)


def test_a_loss_below_zero_is_no_gain() -> None:
    known = [observation_of(Policy(DEIT)), observation_of(Policy(DEIT, (Prune(3, 190),)))]
    perfect = replace(known[1], log_loss=log(LEAST_LOSS), ratio=0.5)  # of a loss of 0
    guess = np.array([0.6]), np.array([-9.0]), np.array([1.0])

    found = hypervolume_gains([*known, perfect], *guess, target_ratio=1.0, least=LEAST_LOSS)

    assert found[0] == pytest.approx(0.0, abs=1e-12)


def test_what_is_far_below_the_least_loss_gains_little_until_nothing_else_does() -> None:
    known = [observation_of(Policy(DEIT)), observation_of(Policy(DEIT, (Prune(3, 190),)))]
    good = replace(known[1], log_loss=log(1e-5 + FINEST_LOSS), ratio=0.5)

    def gain(least: float) -> float:
        """Of a loss of 1e-8 as fast as that of 1e-5."""
        counted = [count_loss_from(one, least, smallest_loss=FINEST_LOSS) for one in (*known, good)]
        guess = np.array([0.5]), np.array([log(1e-8 + least)]), np.array([1e-6])
        return float(hypervolume_gains(counted, *guess, target_ratio=1.0, least=least)[0])

    assert gain(LEAST_LOSS) < 2 * LEAST_GAIN
    assert gain(FINEST_LOSS) > 100 * LEAST_GAIN


@pytest.mark.parametrize(
    ("coarse", "finest", "chosen"),
    [
        (2 * LEAST_GAIN, FINEST_LOSS, LEAST_LOSS),
        (LEAST_GAIN / 2, FINEST_LOSS, FINEST_LOSS),
        (LEAST_GAIN / 2, LEAST_LOSS, LEAST_LOSS),  # shares have one level
    ],
)
def test_finer_losses_decide_once_no_gain_is_worth_a_trial(
    monkeypatch: pytest.MonkeyPatch, coarse: float, finest: float, chosen: float
) -> None:
    sampler = LocalSampler(
        SPACE,
        DEIT,
        observations=list,
        ratio=mac_share,
        target_ratio=lambda: 1.0,
        smallest_loss=finest,
        seed=0,
    )

    def select_best(self: LocalSampler, *asked: Any) -> list[tuple[float, dict[str, float]]]:
        least = asked[-1]
        return [(coarse if least == LEAST_LOSS else 5.0, {"level": least})]

    monkeypatch.setattr(LocalSampler, "_select_best", select_best)

    assert sampler._evolve([observation_of(Policy(DEIT))], [], set()) == {"level": chosen}


def test_losses_are_counted_from_the_least_that_matters_or_from_the_finest() -> None:
    one = replace(observation_of(Policy(DEIT)), log_loss=log(1e-5 + FINEST_LOSS), noise=0.5)

    finest = count_loss_from(one, FINEST_LOSS, smallest_loss=FINEST_LOSS)
    coarse = count_loss_from(one, LEAST_LOSS, smallest_loss=FINEST_LOSS)

    assert (finest.log_loss, finest.noise) == pytest.approx((one.log_loss, 0.5))
    assert coarse.log_loss == pytest.approx(log(1e-5 + LEAST_LOSS))
    assert coarse.noise == pytest.approx(0.5 * 1e-5 / (1e-5 + LEAST_LOSS), rel=1e-3)


def test_a_target_draws_the_search_to_itself() -> None:
    known = [
        observation_of(Policy(DEIT)),
        *(observation_of(Policy(DEIT, (Prune(3, keep),))) for keep in (20, 80)),
    ]
    ratios = np.array([0.2, 0.49])
    mean, deviation = np.full(2, -1.0), np.full(2, 0.5)

    whole = hypervolume_gains(known, ratios, mean, deviation, target_ratio=1.0, least=LEAST_LOSS)
    near = hypervolume_gains(known, ratios, mean, deviation, target_ratio=0.5, least=LEAST_LOSS)

    assert near[1] / near[0] > whole[1] / whole[0]


def test_the_front_is_what_nothing_as_fast_loses_less_than() -> None:
    fast, good, poor = (
        Observation(Policy(DEIT), features(Policy(DEIT)), loss, 0.0, ratio, complete=True)
        for loss, ratio in ((-1.0, 0.3), (-4.0, 0.6), (-2.0, 0.7))
    )

    assert front_of([poor, good, fast]) == (fast, good)


def volume(known: list[Observation]) -> float:
    """What a front dominates, in log loss below 2 times latency below 1."""
    return hypervolume([Point(-one.log_loss, one.ratio) for one in known], reference=Point(-2, 1))


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_it_finds_a_better_front_than_random_search_with_three_times_the_trials(seeds: int) -> None:
    ours = [volume(search(lambda k, s=s: local(k, seed=s), 50)) for s in range(seeds)]
    theirs = [
        volume(search(lambda k, s=s: optuna.samplers.RandomSampler(seed=s), 150))
        for s in range(seeds)
    ]

    assert np.mean(ours) > np.mean(theirs)


def test_it_proposes_nothing_twice_and_nothing_too_slow() -> None:
    known = search(lambda known: local(known, target_ratio=0.6), 40)
    proposed = [one.policy.schedule_hash for one in known]

    assert len(set(proposed)) == len(proposed)
    assert all(one.ratio <= 0.6 for one in known[1:])


def test_the_same_seed_proposes_the_same() -> None:
    first, second = (search(lambda known: local(known, seed=5), 15) for _ in range(2))

    assert [one.policy for one in first] == [one.policy for one in second]
