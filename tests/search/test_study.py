"""What `study.db` tells: every trial with its story, in an order that samplers can use."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.search_space import intersection_search_space
from optuna.trial import TrialState

from tokensearch.policy import Policy, Prune, load
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.search import LocalSampler, load_space
from tokensearch.search.early_stopping import ExtrapolatedLoss, to_log_loss, trial_value
from tokensearch.search.sampler.storage import open_storage
from tokensearch.search.sampler.study import (
    OUTSIDE,
    SEARCHED,
    EstimatedTrial,
    StudyAdapter,
    describe_schedule,
)
from tokensearch.search.space.suggest import suggest_value

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

GOLDEN = RunFolder(Path(__file__).parents[1] / "golden" / "tiny_run")  # of version 1
MODEL = load(GOLDEN.policy).model
SPACE = load_space("default")


def estimated() -> list[EstimatedTrial]:
    """The trials of a run, one of them raced, with losses as if nothing had been extrapolated."""
    return [
        EstimatedTrial(
            trial,
            ExtrapolatedLoss(
                to_log_loss(trial_value(trial.accuracy, "kl"), "kl"),
                0.3 if trial.state == "raced" else 0.0,
            ),
        )
        for trial in GOLDEN.read_trials()
    ]


def adapter(folder: Path) -> StudyAdapter:
    study = StudyAdapter(RunFolder(folder), SPACE, MODEL, "kl")
    study.set_sampler(optuna.samplers.RandomSampler(seed=0))
    return study


def reconcile(study: StudyAdapter) -> None:
    """Tell a study of every trial."""
    known = estimated()
    study.reconcile([each.trial for each in known], lambda trial: known[trial.number])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A folder whose study was told every trial."""
    folder = tmp_path_factory.mktemp("told")
    reconcile(adapter(folder))
    return RunFolder(folder)


@pytest.fixture
def study(told: RunFolder, tmp_path: Path) -> StudyAdapter:
    """A copy of that study, to be changed."""
    shutil.copy(told.study, tmp_path)
    copied = adapter(tmp_path)
    reconcile(copied)
    return copied


def test_every_trial_is_in_one_of_two_studies_whose_values_have_names(study: StudyAdapter) -> None:
    told = [trial for one in (study.study, study.outside) for trial in one.trials]

    assert sorted(trial.user_attrs["line"] for trial in told) == list(range(16))
    assert study.study.metric_names == [
        "minus divergence from the baseline (nats)",
        "latency (share of the baseline's)",
    ]
    assert study.outside.metric_names == study.study.metric_names


def test_a_trial_tells_what_was_tried_and_what_came_of_it(study: StudyAdapter) -> None:
    raced = next(trial for trial in study.study.trials if trial.user_attrs["line"] == 5)

    trial = GOLDEN.read_trials()[5]
    assert raced.user_attrs == {
        "line": 5,
        "origin": "random",
        "outcome": "likely worse",
        "schedule": "block 2: prune 16 to 4",
        "images": 32,
        "agreement": trial.accuracy.top1,  # the images have no labels
        "divergence": trial.accuracy.kl,
        "latency_is": "predicted",
        "predicted_latency": trial.predicted,
        "loss": pytest.approx(trial.accuracy.kl),
        "loss_error": 0.3,
    }
    assert raced.values == pytest.approx([-trial.accuracy.kl, trial.predicted])


def test_a_schedule_that_the_space_cannot_spell_stands_beside_it(study: StudyAdapter) -> None:
    scored = Policy(MODEL, tuple(Prune(block, 15 - block, "random") for block in range(5)))
    known = estimated()[2]
    written, name = policy_to_json(scored), scored.schedule_hash
    study.add(replace(known, trial=replace(known.trial, policy=written, schedule_hash=name)))

    (beside,) = study.outside.trials
    assert beside.params == {}
    assert policy_from_json(beside.user_attrs["policy"]) == scored


def test_nothing_in_a_study_stretches_its_plots(study: StudyAdapter) -> None:
    proposal = study.ask(line=16)
    study.refuse(proposal, 1.4)
    worst = min(-trial.accuracy.kl for trial in GOLDEN.read_trials())

    refused = study.study.trials[proposal.trial.number]
    assert (refused.state, refused.values) == (TrialState.FAIL, None)
    assert refused.user_attrs["outcome"] == "predicted too slow"
    assert refused.user_attrs["predicted_latency"] == 1.4
    assert all(trial.values[0] >= worst - 1e-6 for trial in study.study.trials if trial.values)
    assert (study.refused, study.repeated) == (1, 0)


def test_a_proposal_of_what_was_tried_has_its_line_and_is_marked(study: StudyAdapter) -> None:
    study.repeat(study.ask(line=16), estimated()[12])

    repeated = study.study.trials[-1]
    assert (repeated.user_attrs["outcome"], repeated.user_attrs["line"]) == ("tried before", 12)
    assert study.repeated == 1


def test_samplers_that_choose_everything_together_can_and_counts_are_in_order(
    study: StudyAdapter,
) -> None:
    space = intersection_search_space(study.study.get_trials(deepcopy=False))

    assert set(space) == set(SPACE.dimensions(MODEL))
    ordered = {name for name, one in space.items() if isinstance(one, IntDistribution)}
    assert ordered == {name for name in space if name.startswith(("left", "site"))}
    assert space["left.1"] == IntDistribution(0, 15)


def test_a_trial_that_was_written_but_not_told_is_told_on_resuming(tmp_path: Path) -> None:
    study = adapter(tmp_path)
    stale, lost = study.ask(line=2), study.ask(line=99)

    reconcile(study)

    trials = study.study.trials
    assert trials[stale.trial.number].state == TrialState.COMPLETE
    assert trials[stale.trial.number].user_attrs["outcome"] == "complete"
    assert trials[lost.trial.number].state == TrialState.FAIL
    (again,) = (trial for trial in trials if trial.state == TrialState.WAITING)
    assert again.system_attrs["fixed_params"] == lost.trial.params
    assert "line" not in again.user_attrs
    assert Counter(t.user_attrs["line"] for t in trials if t.values)[2] == 1


def test_a_proposal_that_was_cut_off_in_the_middle_is_not_made_again(tmp_path: Path) -> None:
    study = adapter(tmp_path)
    cut = study.study.ask()
    name, values = next(iter(SPACE.dimensions(MODEL).items()))
    suggest_value(cut, name, values)

    reconcile(study)

    assert study.study.trials[cut.number].state == TrialState.FAIL
    assert all(trial.state != TrialState.WAITING for trial in study.study.trials)


def test_a_study_of_version_1_stays_and_its_trials_are_told_anew(tmp_path: Path) -> None:
    shutil.copy(GOLDEN.study, RunFolder(tmp_path).study)
    before = len(optuna.load_study(study_name="tokensearch", storage=_storage(tmp_path)).trials)

    study = adapter(tmp_path)
    reconcile(study)

    assert {*optuna.get_all_study_names(_storage(tmp_path))} == {"tokensearch", SEARCHED, OUTSIDE}
    old = optuna.load_study(study_name="tokensearch", storage=_storage(tmp_path))
    assert len(old.trials) == before > 0
    assert len(study.study.trials) + len(study.outside.trials) == 16


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    return open_storage(RunFolder(folder).study)


def test_the_local_sampler_learns_from_the_study_of_a_run(study: StudyAdapter) -> None:
    sampler = LocalSampler(SPACE, MODEL, target_ratio=0.6, seed=0, companion=study.outside)
    study.set_sampler(sampler)

    tried = {trial.schedule_hash for trial in GOLDEN.read_trials()}
    assert study.ask(line=16).policy.schedule_hash not in tried


def test_schedules_are_told_in_words() -> None:
    assert describe_schedule(Policy(MODEL)) == "no reduction"
    assert describe_schedule(Policy(MODEL, (Prune(1, 8), Prune(3, 4)))) == (
        "block 1: prune 16 to 8, block 3: prune 8 to 4"
    )
