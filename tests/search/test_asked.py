"""What a search asks of images, and what it spares."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import optuna
import pytest

from tests.search import tiny
from tests.search.clockless import listening, no_clock
from tests.search.tiny import session
from tokensearch.accuracy.store import PredictionStore
from tokensearch.costs.forecast import MARGIN
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import OBJECTIVES, Policy, load_set, mac_share, preset
from tokensearch.policy.file import policy_from_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunResult
from tokensearch.records.run_settings import SamplerName
from tokensearch.runtime import describe
from tokensearch.search.run import SearchRun

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

ERROR = 0.01  # of a forecast that knows what the clock will say


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    with no_clock():
        yield


def asking(one: SearchRun, **changes: object) -> SearchRun:
    """The same session, with other settings."""
    return replace(one, settings=replace(one.settings, **changes))


def result_of(folder: RunFolder) -> RunResult:
    document = folder.read_run()
    assert document is not None
    return document.finished


# Optuna's `gp` takes as long as all others together, and nothing of ours is in it.
MARKS = {"gp": pytest.mark.slow, "nsga2": pytest.mark.long, "tpe-multivariate": pytest.mark.long}


@pytest.mark.parametrize(
    "sampler",
    [pytest.param(name, marks=MARKS.get(name, [])) for name in get_args(SamplerName)],
)
def test_every_sampler_searches(tmp_path: Path, sampler: str) -> None:
    found = asking(session(tmp_path, trials=12, target="0.7x"), sampler=sampler).run()

    assert found.settings.sampler == sampler
    assert len(RunFolder(tmp_path).read_trials()) == 12
    origins = {trial.origin for trial in RunFolder(tmp_path).read_trials()}
    assert {"none", "seed", "random"} <= origins


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if o not in ("knn", "probe")])
def test_every_objective_is_searched_by(tmp_path: Path, objective: str) -> None:
    asking(session(tmp_path, trials=5, target="0.7x"), objective=objective).run()

    policies = load_set(tmp_path / "front.json")
    assert {one.evidence[0].extra["objective"] for one in policies.policies} == {objective}
    assert policies.best(latency="0.7x").schedule_hash == result_of(RunFolder(tmp_path)).answer_hash


@pytest.mark.long
def test_a_cache_changes_no_answer(tmp_path: Path) -> None:
    sizes = {"none": 0.0, "small": 1e-5, "large": 1.0}
    searches = {name: session(tmp_path / name, trials=12, target="0.7x") for name in sizes}

    found = [
        replace(searches[name], cache_gb=gb).run().finished.answer for name, gb in sizes.items()
    ]

    assert found == [found[0]] * 3


def images_run(folder: Path, target: str, store: PredictionStore) -> int:
    """Images that a run sends through the model under a policy."""
    kept: list[PolicyEvaluator] = []
    one = session(folder, trials=14, target=target)

    class Kept(type(one)):
        def evaluator(self) -> PolicyEvaluator:
            kept.append(super().evaluator())
            return kept[-1]

    Kept(**{name: getattr(one, name) for name in one.__dataclass_fields__} | {"store": store}).run()
    *_, evaluator = kept  # the first timed how long images take
    return evaluator.predictions.images_run


@pytest.mark.long
def test_another_target_uses_the_answers_of_the_first_and_the_same_one_runs_no_image(
    tmp_path: Path,
) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    first = images_run(tmp_path / "a", "0.7x", store)

    again = images_run(tmp_path / "again", "0.7x", store)
    later = images_run(tmp_path / "b", "0.8x", PredictionStore(tmp_path / "answers.db"))
    unaided = images_run(tmp_path / "c", "0.8x", PredictionStore(None))

    assert again == 0 < later < unaided
    assert first > 0


@pytest.mark.parametrize("trials", [20, 1])
def test_a_target_out_of_reach_asks_about_the_fastest_schedule_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int
) -> None:
    asked = listening(monkeypatch)
    one = session(tmp_path, trials=trials, target="0.001x")

    found = one.run()

    tried = RunFolder(tmp_path).read_trials()
    assert [trial.origin for trial in tried] == ["none", "fastest"]
    allowed = {trial.schedule_hash for trial in tried}
    for purpose in ("search", "select", "report"):
        assert asked.about(purpose) <= allowed
    assert (found.finished.outcome, found.finished.exit_code) == ("missed", 3)
    assert 0 < found.finished.search_seconds < found.finished.seconds
    front = load_set(tmp_path / "front.json").policies
    assert {policy.schedule_hash for policy in front} == allowed
    (said,) = (line for line in one.listener.cautions if "0.001x is out of reach" in line)
    least = tried[1].predicted
    assert said.startswith("target 0.001x is out of reach: ask for ")
    asked_for = float(said.removeprefix("target 0.001x is out of reach: ask for ").split("x")[0])
    assert least <= asked_for < least + 0.01
    assert f"is predicted at {least:.3g}x, " in said


def test_what_is_predicted_too_slow_is_never_asked_about_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = listening(monkeypatch)

    asking(session(tmp_path, trials=12, target="0.6x"), sampler="random").run()

    trials = RunFolder(tmp_path).read_trials()
    proposed = [trial for trial in trials if trial.origin in {"sampler", "seed", "random"}]
    assert result_of(RunFolder(tmp_path)).trials.out_of_reach > 0
    assert len(proposed) > 3
    assert max(trial.predicted for trial in proposed) <= 0.6 * (1 + 2 * MARGIN * ERROR)
    assert asked.about("search") == {trial.schedule_hash for trial in trials}


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose every race ends at the first look."""
    folder = RunFolder(tmp_path_factory.mktemp("raced"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tokensearch.search.early_stopping.significantly_worse", lambda *_, **__: True
        )
        session(folder.path, trials=16, target="0.7x").run()
    return folder


def test_what_was_stopped_early_is_never_a_finalist(raced: RunFolder) -> None:
    states = {trial.schedule_hash: trial.state for trial in raced.read_trials()}
    stopped = {name for name, state in states.items() if state == "raced"}

    finalists = {one.schedule_hash for one in result_of(raced).finalists}

    assert len(stopped) >= 2
    assert finalists
    assert not finalists & stopped


def test_all_finalists_rest_on_all_images(raced: RunFolder) -> None:
    sizes = {"search": 40, "select": 30, "report": 50}

    for one in result_of(raced).finalists:
        assert {name: getattr(one, name).images for name in sizes} == sizes


def test_what_was_stopped_near_the_front_is_run_to_the_end_and_told_beside(
    raced: RunFolder,
) -> None:
    trials = raced.read_trials()
    stopped = {trial.schedule_hash for trial in trials if trial.state == "raced"}
    ended = [t for t in trials if t.state == "complete" and t.schedule_hash in stopped]

    assert ended
    assert {trial.accuracy.images for trial in ended} == {40}
    counts = result_of(raced).trials
    assert counts.raced == len(stopped) - len(ended)
    assert counts.complete + counts.raced == len(trials) - len(ended)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{raced.study}")
    told = Counter(trial.user_attrs.get("outcome") for trial in study.trials)
    assert told["likely worse"] == len(stopped)


def test_what_was_stopped_early_rests_on_the_images_that_it_took(raced: RunFolder) -> None:
    stopped = [trial for trial in raced.read_trials() if trial.state == "raced"]

    assert {trial.accuracy.images for trial in stopped} == {32}
    assert all(trial.comparison is None for trial in stopped)


@pytest.mark.long
def test_schedules_that_won_elsewhere_are_tried_early(tmp_path: Path) -> None:
    session(tmp_path / "a", trials=16, target="0.7x").run()
    winners = load_set(tmp_path / "a" / "front.json").policies

    one = replace(session(tmp_path / "b", trials=24, target="0.7x"), neighbours=winners)
    one.run()

    trials = RunFolder(tmp_path / "b").read_trials()
    seeded = [policy_from_json(trial.policy) for trial in trials if trial.origin == "seed"]
    space = one.space.fitting(winners[0].model, scored=True, prefix_read=True)
    near = {_nearest(space, policy).schedule_hash for policy in winners if policy.reduces}
    known = {trial.schedule_hash for trial in trials}
    assert seeded
    assert near & known


def _nearest(space: object, policy: Policy) -> Policy:
    return space.build(space.nearest(policy, policy.model), policy.model)  # type: ignore[attr-defined]


def test_a_preset_predicted_just_over_the_target_is_tried(tmp_path: Path) -> None:
    model = tiny.model(depth=12)
    published = preset("topk-0.7", describe(model), rescale=True)
    target_ratio = mac_share(published) / (1 + MARGIN * ERROR / 2)

    with no_clock():
        replace(session(tmp_path, trials=10, target=f"{target_ratio:.4f}x"), model=model).run()

    trials = RunFolder(tmp_path).read_trials()
    over = [trial for trial in trials if target_ratio < trial.predicted < 1.0]
    assert [trial.origin for trial in over] == ["diffrate-mae-b-11.5-rescaled"]
    assert trials[1].predicted * (1 + MARGIN * ERROR) <= target_ratio  # the first surely meets it
