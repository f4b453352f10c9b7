from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.search.clockless import no_clock, timing, together
from tests.search.tiny import Quiet, by_macs, session
from tokensearch.errors import PolicyError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.measure import TimingBudget
from tokensearch.policy import ModelSpec, Policy, PolicySet, load_set, mac_share, save_set
from tokensearch.records.measurements import Caution, Comparison, Latency, to_json
from tokensearch.retime.calibrate import calibrate_front

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

SLOW = 3.0  # of the baseline: here, whatever is dropped makes it slower


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    with no_clock():
        yield


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    folder = tmp_path_factory.mktemp("runs") / "source"
    session(folder, trials=8, target="0.6x").run()
    return load_set(folder / "front.json")


@pytest.fixture
def _other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On which reducing costs time, the more the more is dropped."""

    def slower(_: PolicyTimer, policy: Policy, budget: TimingBudget) -> Comparison:
        ratio = 1.0 if not policy.reduces else SLOW - mac_share(policy)
        passes = Latency((50.0,) * 12, 2), Latency((50.0 * ratio,) * 12, 2)
        cautions = (Caution.SLOW_START,) if policy.reduces else ()
        return Comparison(*passes, ratio, ratio, ratio, 0.95, "slower", cautions)

    monkeypatch.setattr(PolicyTimer, "time_together", together(slower))


def ratios(policies: PolicySet) -> list[float]:
    return [policy.evidence[0].extra["comparison"]["ratio"] for policy in policies.policies]


@pytest.mark.usefixtures("_other_machine")
def test_the_fastest_here_is_first(front: PolicySet) -> None:
    found = calibrate_front(front, timing(), 1.0, Quiet()).front

    assert len(found.policies) == len(front.policies) > 1
    assert ratios(found) == sorted(ratios(found))
    assert not found.policies[0].reduces
    assert front.policies[0].reduces


@pytest.mark.usefixtures("_other_machine")
def test_what_was_timed_elsewhere_is_kept_behind_what_was_timed_here(front: PolicySet) -> None:
    before = {policy.schedule_hash: policy for policy in front.policies}

    for policy in calibrate_front(front, timing(), 1.0, Quiet()).front.policies:
        fresh, *old = policy.evidence
        assert tuple(old) == before[policy.schedule_hash].evidence
        assert fresh.cell == to_json(timing().cell)
        assert fresh.baseline["median_ms"] == 50.0


@pytest.mark.usefixtures("_other_machine")
def test_accuracies_stay_what_they_were(front: PolicySet) -> None:
    for policy in calibrate_front(front, timing(), 1.0, Quiet()).front.policies:
        fresh, old = policy.evidence[:2]
        assert fresh.accuracy == old.accuracy
        assert {**fresh.extra, "comparison": 0} == {**old.extra, "comparison": 0}


@pytest.mark.usefixtures("_other_machine")
def test_a_set_answers_by_what_was_timed_here(front: PolicySet) -> None:
    assert front.best(latency="0.6x").reduces

    found = calibrate_front(front, timing(), 1.0, Quiet()).front

    assert not found.best(latency="60ms").reduces
    with pytest.raises(LookupError, match="the fastest takes 50 ms"):
        found.best(latency="0.6x")


@pytest.mark.usefixtures("_other_machine")
def test_it_is_read_back_as_it_was_written(front: PolicySet, tmp_path: Path) -> None:
    found = calibrate_front(front, timing(), 1.0, Quiet()).front

    save_set(found, tmp_path / "front.json")

    assert ratios(load_set(tmp_path / "front.json")) == ratios(found)


@pytest.mark.usefixtures("_other_machine")
def test_a_doubt_about_timings_is_said_once(front: PolicySet) -> None:
    watcher = Quiet()

    calibrate_front(front, timing(), 1.0, watcher)

    assert watcher.cautions == [Caution.SLOW_START.value]


@pytest.mark.usefixtures("_other_machine")
def test_what_was_timed_in_an_equal_cell_gives_way(front: PolicySet) -> None:
    once = calibrate_front(front, timing(), 1.0, Quiet()).front
    elsewhere = calibrate_front(once, timing(batch=3), 1.0, Quiet()).front

    again = calibrate_front(elsewhere, timing(), 1.0, Quiet()).front

    for policy in again.policies:
        assert [one.cell["batch"] for one in policy.evidence] == [4, 3, 2]


def noisy(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Every comparison says something else."""
    changed = together(lambda *asked: replace(by_macs(*asked), **changes))
    monkeypatch.setattr(PolicyTimer, "time_together", changed)


@pytest.mark.usefixtures("_other_machine")
def test_a_timing_without_such_doubts_confirms(front: PolicySet) -> None:
    found = calibrate_front(front, timing(), 1.0, Quiet()).front

    assert all(policy.evidence[0].confirmed for policy in found.policies)


@pytest.mark.parametrize(
    "changes",
    [
        {"cautions": (Caution.BUSY,)},
        {"ratio": 0.5, "low": 0.5, "high": 0.53},
        {"ratio": 0.5, "low": 0.47, "high": 0.5},
    ],
)
def test_a_busy_machine_or_a_wide_interval_confirm_nothing(
    front: PolicySet, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    noisy(monkeypatch, **changes)
    watcher = Quiet()

    found = calibrate_front(front, timing(), 1.0, watcher)

    assert not found.confirms
    assert all(found.doubts.values())
    assert not any(policy.evidence[0].confirmed for policy in found.front.policies)
    assert watcher.cautions[-1] == (
        "too close to call: no policy is confirmed by the timings of now, and anything confirmed "
        "here before is kept; stop other programs, or allow more --seconds"
    )


def disturb(patch: pytest.MonkeyPatch, chosen: Callable[[Policy], bool]) -> None:
    """Have other programs work while the chosen policies are timed."""

    def busy(timer: PolicyTimer, policy: Policy, budget: TimingBudget) -> Comparison:
        comparison = by_macs(timer, policy, budget)
        return replace(comparison, cautions=(Caution.BUSY,) if chosen(policy) else ())

    patch.setattr(PolicyTimer, "time_together", together(busy))


def test_policies_that_are_not_confirmed_are_counted(
    front: PolicySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = front.policies[0].schedule_hash
    disturb(monkeypatch, lambda policy: policy.reduces and policy.schedule_hash != first)
    watcher = Quiet()

    calibration = calibrate_front(front, timing(), 1.0, watcher)

    reducing = sum(policy.reduces for policy in front.policies)
    assert calibration.confirms
    assert watcher.cautions[-1] == (
        f"{reducing - 1} of {reducing} policies are not confirmed by the timings of now, and keep "
        "anything confirmed here before: stop other programs, or allow more --seconds"
    )


def test_a_baseline_beside_itself_confirms_no_front(
    front: PolicySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, lambda policy: policy.reduces)

    assert not calibrate_front(front, timing(), 1.0, Quiet()).confirms


def test_a_timing_that_confirms_nothing_displaces_none_that_does(
    front: PolicySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(monkeypatch)
    once = calibrate_front(front, timing(), 1.0, Quiet()).front
    noisy(monkeypatch, ratio=3.0, low=1.0, high=9.0)

    calibration = calibrate_front(once, timing(), 1.0, Quiet())

    again = calibration.front
    assert [one.evidence for one in again.policies] == [one.evidence for one in once.policies]
    assert all(one.extra["comparison"]["ratio"] == 3.0 for one in calibration.fresh.values())


def test_a_set_stays_fastest_first_by_the_evidence_that_is_kept(
    front: PolicySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = calibrate_front(front, timing(), 1.0, Quiet()).front
    ratios = [0.2 + 0.1 * place for place in range(len(once.policies))]
    marked = [
        one.with_evidence(
            replace(
                one.evidence[0],
                confirmed=True,
                extra={**one.evidence[0].extra, "comparison": {"ratio": ratio}},
            )
        )
        for one, ratio in zip(once.policies, ratios, strict=True)
    ]
    noisy(monkeypatch, ratio=3.0, low=1.0, high=9.0)

    again = calibrate_front(PolicySet(tuple(reversed(marked))), timing(), 1.0, Quiet())

    kept = again.front.policies
    assert [one.evidence[0].extra["comparison"]["ratio"] for one in kept] == ratios


def test_a_set_without_policies_is_refused() -> None:
    with pytest.raises(PolicyError) as raised:
        calibrate_front(PolicySet(()), timing(), 1.0, Quiet())

    assert str(raised.value) == "the set holds no policies that could be timed"


def test_a_set_of_another_geometry_is_refused_before_anything_is_timed(front: PolicySet) -> None:
    other = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)
    whole = Policy(other, evidence=front.policies[0].evidence)
    watcher = Quiet()

    with pytest.raises(PolicyError, match="was made for deit with blocks 12; "):
        calibrate_front(replace(front, policies=(*front.policies, whole)), timing(), 1.0, watcher)

    assert watcher.stages == []
