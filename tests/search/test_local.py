"""The local search, on landscapes whose best is known."""

from dataclasses import replace
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import optuna
import pytest

from tokensearch.costs.forecast import Forecast
from tokensearch.errors import RunError
from tokensearch.front import Point, hypervolume
from tokensearch.policy import ModelSpec, Policy, Prune, mac_share
from tokensearch.policy.file import policy_to_json
from tokensearch.search import LocalSampler, load_space
from tokensearch.search.early_stopping import FINEST_LOSS, LEAST_LOSS
from tokensearch.search.sampler.gains import (
    MOST_LOSS,
    count_loss_from,
    front_of,
    hypervolume_gains,
)
from tokensearch.search.sampler.local import LEAST_GAIN, Proposer
from tokensearch.search.sampler.mutations import ParameterMutator
from tokensearch.search.sampler.observations import Knowledge, Observation, Pending, StudyReader
from tokensearch.search.sampler.surrogate import features
from tokensearch.search.space.suggest import encode

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
    return Observation(
        policy,
        SPACE.nearest(policy, DEIT),
        features(policy),
        log_loss=log_loss(policy),
        noise=0.0,
        ratio=mac_share(policy),
        complete=True,
    )


FORECAST = Forecast(mac_share, 0.01)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """What a user of Optuna alone would write."""
    policy = SPACE.suggest(trial, DEIT)
    trial.set_user_attr("loss", exp(log_loss(policy)))
    return -log_loss(policy), mac_share(policy)


def make_study(sampler: optuna.samplers.BaseSampler, **where: str) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler, **where)


def search(sampler: optuna.samplers.BaseSampler, trials: int) -> list[Observation]:
    study = make_study(sampler)
    study.optimize(objective, n_trials=trials)
    return known_of(study)


def known_of(study: optuna.Study) -> list[Observation]:
    return list(StudyReader(SPACE, DEIT, FORECAST, FINEST_LOSS).read(study).observations)


def local(*, seed: int = 0, **options: Any) -> LocalSampler:
    return LocalSampler(SPACE, DEIT, forecast=FORECAST, seed=seed, **options)


def test_expected_gains_are_those_of_many_throws() -> None:
    known = [
        observation_of(Policy(DEIT)),
        *(observation_of(Policy(DEIT, (Prune(3, keep),))) for keep in (20, 80)),
    ]
    ratios, mean, deviation = np.array([0.45, 0.9]), np.array([-1.0, -6.0]), np.array([1.5, 1.0])

    found = hypervolume_gains(known, ratios, mean, deviation, target_ratio=1.0, least=LEAST_LOSS)

    at = np.linspace(0, 1, 65)[1:]
    worst = log(exp(min(one.log_loss for one in known)) + MOST_LOSS)
    best = np.array([min([worst, *(o.log_loss for o in known if o.ratio <= t)]) for t in at])
    best = np.maximum(best, log(LEAST_LOSS))
    throws = np.random.default_rng(0).normal(mean, deviation, (20_000, 2))
    for place in range(2):
        reached = np.maximum(throws[:, place, None], log(LEAST_LOSS))
        gain = np.maximum(0, best - reached) * (ratios[place] <= at)
        assert found[place] == pytest.approx(gain.mean(), rel=0.05)


def test_what_is_faster_than_all_so_far_gains_though_it_loses_more() -> None:
    known = [observation_of(Policy(DEIT)), observation_of(Policy(DEIT, (Prune(3, 190),)))]
    guess = np.array([0.3, 0.3]), np.log([0.1, 2.0]), np.full(2, 1e-6)

    found = hypervolume_gains(known, *guess, target_ratio=1.0, least=LEAST_LOSS)

    assert max(one.log_loss for one in known) < log(0.1)
    assert found[0] == pytest.approx((known[1].ratio - 0.3) * log(10), rel=0.1)
    assert found[1] == pytest.approx(0.0, abs=1e-9)  # nobody wants two nats


def test_a_loss_below_zero_is_no_gain() -> None:
    known = [observation_of(Policy(DEIT)), observation_of(Policy(DEIT, (Prune(3, 190),)))]
    perfect = replace(known[1], log_loss=log(LEAST_LOSS), ratio=0.5)  # of a loss of 0
    guess = np.array([0.6]), np.array([-9.0]), np.array([1.0])

    found = hypervolume_gains([*known, perfect], *guess, target_ratio=1.0, least=LEAST_LOSS)

    assert found[0] == pytest.approx(0.0, abs=1e-12)


def test_what_is_far_below_the_least_loss_gains_little_until_nothing_else_does() -> None:
    known = [observation_of(Policy(DEIT)), observation_of(Policy(DEIT, (Prune(3, 190),)))]
    good = replace(known[1], log_loss=log(1e-7 + FINEST_LOSS), ratio=0.5)

    def gain(least: float) -> float:
        """Of a loss of 1e-8 as fast as that of 1e-7."""
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
    mutator = ParameterMutator(SPACE.dimensions(DEIT), np.random.default_rng(0))
    proposer = Proposer(SPACE, DEIT, Knowledge((), FORECAST), mutator, 1.0, finest)

    def select_best(self: Proposer, *asked: Any) -> list[tuple[float, dict[str, float]]]:
        least = asked[-1]
        return [(coarse if least == LEAST_LOSS else 5.0, {"level": least})]

    monkeypatch.setattr(Proposer, "_select_best", select_best)

    assert proposer._evolve([], set()) == {"level": chosen}


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
        replace(observation_of(Policy(DEIT)), log_loss=loss, ratio=ratio)
        for loss, ratio in ((-1.0, 0.3), (-4.0, 0.6), (-2.0, 0.7))
    )

    assert front_of([poor, good, fast]) == (fast, good)


def volume(known: list[Observation]) -> float:
    """What a front dominates, in log loss below 2 times latency below 1."""
    return hypervolume([Point(-one.log_loss, one.ratio) for one in known], reference=Point(-2, 1))


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_it_finds_a_better_front_than_random_search_with_three_times_the_trials(seeds: int) -> None:
    ours = [volume(search(local(seed=s), 30)) for s in range(seeds)]
    theirs = [volume(search(optuna.samplers.RandomSampler(seed=s), 90)) for s in range(seeds)]

    assert np.mean(ours) > np.mean(theirs)


def test_it_proposes_nothing_twice_and_nothing_too_slow() -> None:
    study = make_study(local(target_ratio=0.6))
    study.optimize(objective, n_trials=24)
    proposed = {one.policy.schedule_hash for one in known_of(study)}

    assert len(proposed) == 24
    assert all(trial.values[1] <= 0.6 for trial in study.trials)


def test_a_second_process_goes_on_as_the_first_would_have(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    whole = make_study(local(seed=5))
    whole.optimize(objective, n_trials=12)

    make_study(local(seed=5), storage=storage, study_name="ours").optimize(objective, n_trials=9)
    second = optuna.load_study(study_name="ours", storage=storage, sampler=local(seed=5))
    second.optimize(objective, n_trials=3)

    assert [one.params for one in second.trials] == [one.params for one in whole.trials]


def test_what_the_study_holds_decides_what_is_proposed() -> None:
    empty, full = make_study(local()), make_study(optuna.samplers.RandomSampler(seed=1))
    full.optimize(objective, n_trials=12)
    full.sampler = local()
    for _ in range(12):
        empty.ask()  # proposals depend on the trial's number as well

    first, second = empty.ask(), full.ask()

    assert first.number == second.number
    assert SPACE.suggest(first, DEIT) != SPACE.suggest(second, DEIT)


def test_a_trial_without_a_loss_is_named() -> None:
    study = make_study(local())
    study.add_trial(optuna.create_trial(values=[0.0, 1.0]))

    with pytest.raises(RunError, match=r"^trial 0 of study .* has no user attribute 'loss'; "):
        SPACE.suggest(study.ask(), DEIT)


def test_a_schedule_outside_the_space_teaches_from_a_companion() -> None:
    companion = make_study(optuna.samplers.RandomSampler())
    pruned = Policy(DEIT, tuple(Prune(block, 190 - 12 * block) for block in range(8)))
    attributes = {"loss": 1e-3, "policy": policy_to_json(pruned)}
    companion.add_trial(optuna.create_trial(values=[3.0, 0.5], user_attrs=attributes))

    (observation,) = known_of(companion)

    assert observation.policy == pruned
    assert SPACE.build(observation.parameters, DEIT).reduces


def test_a_timing_is_weighed_with_what_all_timings_say() -> None:
    study = make_study(optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=8)
    slower = {"latency": 1.3, "latency_low": 1.29, "latency_high": 1.31}

    timed = make_study(optuna.samplers.RandomSampler())
    for trial in study.trials:
        ratio = {name: by * trial.values[1] for name, by in slower.items()}
        timed.add_trial(
            optuna.create_trial(
                values=trial.values,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={**trial.user_attrs, **ratio},
            )
        )

    for before, after in zip(known_of(study), known_of(timed), strict=True):
        if before.policy.reduces:
            assert after.ratio == pytest.approx(1.3 * before.ratio, rel=0.02)


def test_enqueued_schedules_are_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(local())
    asked = encode(SPACE.nearest(Policy(DEIT), DEIT), SPACE.dimensions(DEIT))
    study.enqueue_trial(asked)
    monkeypatch.setattr(Proposer, "propose", None)

    assert not SPACE.suggest(study.ask(), DEIT).reduces


def test_what_another_worker_is_at_is_proposed_by_nobody_else() -> None:
    def propose(*pending: Pending) -> dict[str, Any]:
        mutator = ParameterMutator(SPACE.dimensions(DEIT), np.random.default_rng(3))
        knowledge = Knowledge((), FORECAST)
        return dict(Proposer(SPACE, DEIT, knowledge, mutator, 1.0, FINEST_LOSS, pending).propose())

    first = propose()
    policy = SPACE.build(first, DEIT)
    second = propose(Pending(policy, first, features(policy)))

    assert SPACE.build(second, DEIT).schedule_hash != policy.schedule_hash
    assert propose() == first  # by equal dice


def test_the_sampler_knows_what_others_are_at_once_they_have_chosen() -> None:
    sampler = LocalSampler(SPACE, DEIT, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    one, other = study.ask(), study.ask()
    policy = SPACE.suggest(one, DEIT)
    frozen = study.get_trials()[other.number]

    reader = StudyReader(SPACE, DEIT, FORECAST, FINEST_LOSS)
    (pending,) = reader.read_running(study, but=frozen)

    assert pending.policy.schedule_hash == policy.schedule_hash
