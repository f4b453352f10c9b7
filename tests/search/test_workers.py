"""Several workers on one study: nothing is done twice, and what a dead one had begun is redone."""

import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import IntegrityError

from tests.search.test_study import MODEL, SPACE, estimated
from tokensearch.policy import Policy, Prune
from tokensearch.policy.file import policy_from_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.space.suggest import suggest_value
from tokensearch.search.workers.device import DeviceLock
from tokensearch.search.workers.lease import BEAT, BEAT_S, STALE_S, Ages
from tokensearch.search.workers.storage import _open
from tokensearch.search.workers.study import MOST_TAKEN_OVER, SharedStudy

POLICIES = [Policy(MODEL, (Prune(block, keep),)) for block in (1, 2, 3) for keep in (4, 6, 8, 12)]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., SharedStudy]]:
    """What makes one more worker of a study in memory."""
    storage, opened = InMemoryStorage(), list[SharedStudy]()

    def make(*, on: BaseStorage = storage) -> SharedStudy:
        study = SharedStudy(
            RunFolder(tmp_path), SPACE, MODEL, "kl", storage=on, name="s", role="both"
        )
        study.set_sampler(RandomSampler(seed=0))
        opened.append(study)
        return study

    yield make
    for study in opened:
        study.close()


def side_by_side(work: Callable[[SharedStudy], None], workers: list[SharedStudy]) -> None:
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_workers_that_begin_one_policy_at_once_a_single_one_goes_on(
    join: Callable[..., SharedStudy],
) -> None:
    workers, begun = [join() for _ in range(8)], list[str]()
    all_there = threading.Barrier(len(workers))

    def work(study: SharedStudy) -> None:
        for policy in POLICIES:
            all_there.wait()
            if study.claim(policy, "preset") is not None:
                begun.append(policy.schedule_hash)
            all_there.wait()  # nobody ends a policy that another is about to begin

    side_by_side(work, workers)

    assert sorted(begun) == sorted({policy.schedule_hash for policy in POLICIES})


def test_a_finished_trial_is_known_to_every_worker_once(join: Callable[..., SharedStudy]) -> None:
    one, other = join(), join()
    known = estimated()[3]
    proposal = one.claim(policy_from_json(known.trial.policy), known.trial.origin)
    assert proposal is not None

    assert one.tell(proposal, known)

    assert one.fetch_trials() == ()
    assert other.fetch_trials() == (known.trial,)
    assert other.fetch_trials() == ()


def test_what_a_dead_worker_had_begun_is_begun_anew_and_its_late_result_is_refused(
    join: Callable[..., SharedStudy],
) -> None:
    dead, alive = join(), join()
    known = estimated()[3]
    policy = policy_from_json(known.trial.policy)
    late = dead.claim(policy, "preset")
    assert late is not None
    (begun,) = alive._running_trials()

    alive._take_over(begun)
    anew = alive.ask(0)

    assert (anew.policy.schedule_hash, anew.origin) == (policy.schedule_hash, "preset")
    assert not alive.is_taken(anew)
    assert not dead.tell(late, known)
    assert alive.tell(anew, known)
    assert dead.fetch_trials() == (known.trial,)


def test_a_policy_that_kills_every_worker_is_given_up(join: Callable[..., SharedStudy]) -> None:
    alive, policy = join(), POLICIES[0]
    alive.claim(policy, "preset")

    for _ in range(MOST_TAKEN_OVER):
        alive._take_over(alive._running_trials()[0])
        assert alive.ask(0).policy.schedule_hash == policy.schedule_hash
    alive._take_over(alive._running_trials()[0])

    waiting = [s.get_trials(states=(TrialState.WAITING,)) for s in (alive.study, alive.outside)]
    assert waiting == [[], []]


def test_a_worker_that_is_interrupted_hands_its_trial_back(
    join: Callable[..., SharedStudy],
) -> None:
    one, other = join(), join()
    one.claim(POLICIES[0], "preset")

    one.close()

    assert other.ask(0).policy.schedule_hash == POLICIES[0].schedule_hash


class Copying(InMemoryStorage):
    """Hands out copies of trials, as a database does."""

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return deepcopy(super().get_trial(trial_id))


def test_a_proposal_of_the_sampler_is_handed_back_by_a_worker_that_is_interrupted(
    join: Callable[..., SharedStudy],
) -> None:
    storage = Copying()
    one, other = join(on=storage), join(on=storage)
    other.set_sampler(RandomSampler(seed=1))
    proposed = one.ask(0).policy

    one.close()

    assert len(other.study.get_trials(states=(TrialState.WAITING,))) == 1
    assert other.ask(0).policy.schedule_hash == proposed.schedule_hash


def test_a_worker_that_dies_while_it_proposes_leaves_nothing_to_be_begun_anew(
    join: Callable[..., SharedStudy],
) -> None:
    dead, alive = join(), join()
    name, values = next(iter(SPACE.dimensions(MODEL).items()))
    suggest_value(dead.study.ask(), name, values)
    (begun,) = alive._running_trials()
    assert begun.params

    alive._take_over(begun)

    assert alive.study.get_trials(states=(TrialState.WAITING,)) == []
    assert alive.ask(0).trial is not None


def test_tables_that_another_process_is_making_are_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = InMemoryStorage()
    outcomes = iter([IntegrityError("CREATE TABLE", None, Exception("duplicate key")), made])

    def open_next(*_: object, **__: object) -> BaseStorage:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("tokensearch.search.workers.storage.RDBStorage", open_next)

    assert _open("postgresql+psycopg://me@db/studies") is made


def beating(trial_id: int, beat: int) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING, user_attrs={BEAT: beat})
    trial._trial_id = trial_id
    return trial


def test_a_trial_is_stale_once_it_has_shown_no_life_for_long() -> None:
    ages, stale = Ages(), list[int]()
    for look in range(int(STALE_S / BEAT_S) + 2):
        seen = ages.look([beating(1, beat=look), beating(2, beat=7)], now=look * BEAT_S)
        stale += [trial._trial_id for trial in seen]

    assert set(stale) == {2}


def test_a_process_that_was_stopped_itself_takes_no_trial_for_stale() -> None:
    ages = Ages()
    ages.look([beating(1, beat=1)], now=0.0)

    assert ages.look([beating(1, beat=1)], now=1000.0) == []


def test_a_device_is_held_alone_while_something_is_timed_on_it(tmp_path: Path) -> None:
    one, other = (DeviceLock(tmp_path / "gpu.lock") for _ in range(2))
    events, timing = list[str](), threading.Event()

    def predict() -> None:
        timing.wait()
        with other.together():
            events.append("predicted")

    thread = threading.Thread(target=predict)
    thread.start()
    with one.alone():
        timing.set()
        thread.join(0.2)
        events.append("timed")
    thread.join()

    assert events == ["timed", "predicted"]
