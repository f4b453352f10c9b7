"""A run whose study is in PostgreSQL: searched by workers, and made into a folder anew."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
from sqlalchemy.exc import OperationalError, PendingRollbackError, ProgrammingError

from tests.postgres import postgres
from tests.search import tiny
from tests.search.clockless import no_clock
from tests.search.test_study import estimated
from tests.short import few_candidates, short_profiles
from tokensearch.costs.forecast import Forecast
from tokensearch.errors import RunError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy, mac_share
from tokensearch.policy.file import policy_from_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.search.time_plan import TimePlan
from tokensearch.search.workers.answers import store_beside
from tokensearch.search.workers.publish import Publication
from tokensearch.search.workers.run import SharedRun, Sharing, WorkerRun
from tokensearch.search.workers.storage import SharedStorage, is_away, shared_storage
from tokensearch.search.workers.study import RECORD, SharedStudy

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Shared(SharedRun):
    """A session that knows what multiply-accumulates promise."""

    def forecast(self, evaluator: PolicyEvaluator, plan: TimePlan) -> Forecast:
        return Forecast(mac_share, 0.01)


@pytest.fixture(scope="module")
def storage() -> Iterator[SharedStorage]:
    with postgres() as server, shared_storage(server.address) as opened:
        yield opened


def shared(kind: type[SharedRun], folder: Path, storage: SharedStorage) -> SharedRun:
    common = {**vars(tiny.session(folder, trials=10)), "store": store_beside(storage)}
    return kind(**common, sharing=Sharing(storage, "tiny"))


def fail(_: float) -> None:
    """Stand in for a wait that is not to be."""
    pytest.fail("it was waited for")


def run(session: SharedRun) -> RunDocument:
    with no_clock(), short_profiles(), few_candidates():
        return session.run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, storage: SharedStorage) -> SharedRun:
    """A shared run that has ended."""
    session = shared(Shared, tmp_path_factory.mktemp("shared") / "run", storage)
    run(session)
    return session


def test_a_run_folder_can_be_made_of_the_study_alone(finished: SharedRun, tmp_path: Path) -> None:
    anew = RunFolder(tmp_path / "anew")

    finished.sharing.publication.write_folder(anew)

    kept = finished.folder
    assert anew.read_trials() == kept.read_trials()
    assert len(kept.read_trials()) == 10
    assert anew.read_run() == kept.read_run()
    for name in ("front.json", "policy.json"):
        assert (anew.path / name).read_text() == (kept.path / name).read_text()


def test_the_same_command_on_another_machine_goes_on_from_the_study(
    finished: SharedRun, storage: SharedStorage, tmp_path: Path
) -> None:
    later = shared(Shared, tmp_path / "later", storage)
    later = replace(later, limits=replace(later.limits, trials=12))

    run(later)

    before, now = finished.folder.read_trials(), later.folder.read_trials()
    assert now[: len(before)] == before
    assert len(now) == 12
    assert len({trial.schedule_hash for trial in now}) == 12


def test_a_worker_whose_machine_is_another_is_refused_with_both_shown(
    finished: SharedRun, storage: SharedStorage, tmp_path: Path
) -> None:
    worker = shared(WorkerRun, tmp_path / "worker", storage)
    worker.folder.create()
    finished.sharing.publication.fetch(worker.folder)
    other = replace(worker._cell.machine, processor="Another 9000")
    published = worker.folder.require_run()
    worker.folder.write_run(replace(published, cell=replace(published.cell, machine=other)))

    with pytest.raises(RunError, match=r"processor Another 9000 against .*; give --role accuracy"):
        run(worker)


def test_a_worker_of_accuracies_may_be_of_another_machine_and_times_nothing(
    finished: SharedRun, storage: SharedStorage, tmp_path: Path
) -> None:
    worker = shared(WorkerRun, tmp_path / "worker", storage)
    worker = replace(worker, sharing=replace(worker.sharing, role="accuracy"))
    worker = replace(worker, limits=replace(worker.limits, trials=15))
    worker.folder.create()
    finished.sharing.publication.fetch(worker.folder)
    other = replace(worker._cell.machine, processor="Another 9000")
    published = worker.folder.require_run()
    worker.folder.write_run(replace(published, cell=replace(published.cell, machine=other)))
    finished.sharing.publication.set("stopped", value=False)
    before = finished.sharing.publication.trials()

    run(worker)

    new = finished.sharing.publication.trials()[len(before) :]
    assert new
    assert all(trial.comparison is None for trial in new)


def test_a_study_that_is_not_there_is_named(storage: SharedStorage) -> None:
    with pytest.raises(RunError, match="there is no study 'absent' in this storage"):
        Publication(storage.studies, "absent").run()


def test_a_worker_that_comes_too_early_waits_and_then_says_what_to_start(
    storage: SharedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.search.workers.publish.SETUP_S", 0.1)
    said = list[str]()

    with pytest.raises(RunError, match="--study early` first"):
        Publication(storage.studies, "early").wait_until_ready(said.append)

    assert said == ["waiting for the run of study 'early' to time the baseline"]


def test_a_database_that_is_not_there_is_not_waited_for(
    storage: SharedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", fail)
    opening = shared_storage(storage.address.replace("/postgres?", "/nowhere?"))

    with pytest.raises(RunError, match='database "nowhere" does not exist'):
        opening.__enter__()


@pytest.mark.parametrize(("said", "away"), [("closed the connection", True), ("syntax", False)])
def test_a_connection_lost_within_a_transaction_is_waited_for(*, said: str, away: bool) -> None:
    kind = OperationalError if away else ProgrammingError
    lost = StorageInternalError("An exception is raised during the commit.")
    lost.__cause__ = PendingRollbackError("Can't reconnect until it is rolled back")
    lost.__cause__.__context__ = kind("SELECT 1", {}, Exception(said))

    assert is_away(lost) is away


def test_an_address_that_processes_cannot_share_is_refused() -> None:
    with (
        pytest.raises(RunError, match="cannot be shared by processes; give postgresql"),
        shared_storage("sqlite:///study.db"),
    ):
        pass


def test_results_are_computed_once_for_all_processes(
    finished: SharedRun, storage: SharedStorage, tmp_path: Path
) -> None:
    worker = shared(Shared, tmp_path / "again", storage)
    again = replace(worker, sharing=replace(worker.sharing, name="another"))
    evaluator = again.evaluator()
    best = finished.folder.read_trials()[-1]

    evaluator.score(policy_from_json(best.policy), "search")

    assert evaluator.predictions.images_run == 0


def in_memory(folder: Path) -> Shared:
    """A shared run whose study is of this process alone."""
    sharing = Sharing(SharedStorage("memory", InMemoryStorage(), None), "tiny")
    return Shared(**vars(tiny.session(folder, trials=3)), sharing=sharing)


def test_a_baseline_that_a_killed_run_had_begun_is_timed_once_that_is_known_to_be_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.search.workers.lease.BEAT_S", 0.05)
    monkeypatch.setattr("tokensearch.search.workers.lease.STALE_S", 0.3)
    session = in_memory(tmp_path / "run")
    evaluator, baseline = session.evaluator(), Policy(session._spec)
    killed = session.open_study(session.space)
    assert isinstance(killed, SharedStudy)
    assert killed.claim(baseline, "none") is not None
    killed._lease.end()

    with no_clock(), session.using_study():
        plan = TimePlan(None)
        search = session._begun(evaluator, plan, session.forecast(evaluator, plan))
        search.try_fixed([("none", baseline)])
        assert search.find_trial(baseline) is None
        session.baseline_timed(search)

    assert search.find_trial(baseline) is not None


def test_trials_of_a_folder_that_the_study_does_not_know_are_not_overwritten(
    tmp_path: Path,
) -> None:
    session = in_memory(tmp_path / "run")
    session.folder.create()
    session.folder.write_run(session._document(session.evaluator(), session.splits))
    session.folder.append_trial(estimated()[0].trial)
    before = session.folder.trials.read_text()

    with pytest.raises(RunError, match="holds trials that study 'tiny' does not; name another"):
        run(session)

    assert session.folder.trials.read_text() == before


def test_a_folder_that_could_not_be_made_can_be_made_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, folder = InMemoryStorage(), RunFolder(tmp_path / "anew")
    study = optuna.create_study(study_name="tiny", storage=storage)
    study.add_trial(create_trial(value=0.0, user_attrs={RECORD: {}}))
    monkeypatch.setattr(Publication, "fetch", lambda _, into: into.run.write_text("{}"))

    with pytest.raises(RunError, match="in trial 0 of the shared study"):
        Publication(storage, "tiny").write_folder(folder)

    assert not folder.run.exists()
