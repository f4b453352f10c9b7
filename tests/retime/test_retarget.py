import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.search.clockless import listening, no_clock, timing, together
from tests.search.tiny import Quiet, by_macs, session
from tokensearch.costs import save_costs
from tokensearch.costs.forecast import Forecast
from tokensearch.costs.sweep import sweep
from tokensearch.errors import PolicyError, RunError, TokensearchError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import Goal, Policy, load, load_set, mac_share, parse_target
from tokensearch.records.measurements import Caution, Comparison
from tokensearch.records.run_folder import RunFolder
from tokensearch.report.run.page import write_report
from tokensearch.retime.retarget import (
    KnownPolicy,
    Retarget,
    confirm_known,
    read_finished,
    select_to_time,
)
from tokensearch.search import latency_model
from tokensearch.search.early_stopping import trial_value

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    with no_clock():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "source"
    session(folder, trials=10, target="0.6x").run()
    return RunFolder(folder)


@pytest.fixture
def damaged(source: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy, to be spoilt."""
    shutil.copytree(source.path, tmp_path / "damaged")
    return RunFolder(tmp_path / "damaged")


def retarget(
    source: RunFolder, path: Path, target: str, clock: PolicyTimer | None = None
) -> Retarget:
    return Retarget(
        read_finished(source),
        RunFolder(path),
        clock or timing(),
        Goal(parse_target(target)),
        Quiet(),
        "tokensearch retarget",
    )


def known(source: RunFolder) -> tuple[KnownPolicy, ...]:
    return read_finished(source).known


def test_another_target_is_answered_without_asking_about_any_image(
    source: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, clock, passes = listening(monkeypatch), timing(), []
    clock.model.register_forward_hook(lambda *_: passes.append(1))

    document = retarget(source, tmp_path / "new", "0.8x", clock).run()

    assert document.finished.outcome == "met"
    assert (asked.chunks, passes) == ([], [])


def test_the_answer_is_the_fastest_that_is_as_good_as_the_best_that_meets_the_target(
    source: RunFolder, tmp_path: Path
) -> None:
    under = [one for one in known(source) if mac_share(one.policy) <= 0.7]
    best = max(under, key=lambda one: trial_value(one.finalist.select, "kl"))

    document = retarget(source, tmp_path / "new", "0.7x").run()

    answer = load(tmp_path / "new" / "policy.json")
    assert answer.schedule_hash == document.finished.answer_hash
    assert answer.evidence[0].extra["select"]["kl"] <= best.finalist.select.kl + 1e-3
    assert mac_share(answer) <= mac_share(best.policy)
    assert load_set(tmp_path / "new" / "front.json").best(latency="0.7x") == answer


def test_accuracies_are_those_of_the_run(source: RunFolder, tmp_path: Path) -> None:
    retarget(source, tmp_path / "new", "0.7x").run()

    before = {one.policy.schedule_hash: one for one in known(source)}
    for policy in load_set(tmp_path / "new" / "front.json").policies:
        there = before[policy.schedule_hash]
        assert policy.evidence[0].accuracy["right"] == there.report.accuracy.right
        assert policy.evidence[0].extra["select"]["kl"] == there.finalist.select.kl
        assert policy.evidence[0].cell["batch"] == 4


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("0.6x", ("met", 0)),
        ("20ms", ("unreduced", 0)),
        ("1x", ("unreduced", 0)),
        ("0.01x", ("missed", 3)),
    ],
)
def test_exit_codes_are_those_of_a_run(
    source: RunFolder, tmp_path: Path, target: str, said: tuple[str, int]
) -> None:
    result = retarget(source, tmp_path / "new", target).run().finished

    assert (result.outcome, result.exit_code) == said
    assert load_set(tmp_path / "new" / "front.json").policies
    assert (tmp_path / "new" / "policy.json").exists() == (said[1] == 0)


def test_what_is_too_close_to_call_exits_with_4(
    source: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubtful(*asked: object) -> Comparison:
        found = by_macs(*asked)  # type: ignore[arg-type]
        return replace(found, low=0.9 * found.ratio, high=1.1 * found.ratio)

    monkeypatch.setattr(PolicyTimer, "time_together", together(doubtful))
    fastest = min(mac_share(one.policy) for one in known(source))

    result = retarget(source, tmp_path / "new", f"{fastest:.4f}x").run().finished

    assert (result.outcome, result.exit_code) == ("ambiguous", 4)


def test_a_busy_machine_gives_no_firm_answer_and_keeps_what_the_run_had_confirmed(
    source: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*asked: object) -> Comparison:
        compared = by_macs(*asked)  # type: ignore[arg-type]
        slow = 0.85 if compared.ratio < 0.9 else compared.ratio
        return replace(compared, ratio=slow, low=slow, high=slow, cautions=(Caution.BUSY,))

    there = replace(timing(), cell=read_finished(source).document.cell)
    monkeypatch.setattr(PolicyTimer, "time_together", together(busy))

    result = retarget(source, tmp_path / "new", "0.6x", there).run().finished

    assert (result.outcome, result.exit_code) == ("ambiguous", 4)
    answer = result.answer
    assert answer is not None
    assert answer.earlier is not None
    assert answer.earlier.ratio == mac_share(answer.policy)
    assert not load(tmp_path / "new" / "policy.json").evidence[0].confirmed


def test_the_new_folder_is_a_run_folder_whose_report_says_what_it_is(
    source: RunFolder, tmp_path: Path
) -> None:
    retarget(source, tmp_path / "new", "0.7x").run()

    write_report(RunFolder(tmp_path / "new"))

    said = (tmp_path / "new" / "report.md").read_text()
    assert (
        f"Only time was taken in this run: its schedules and their right answers are those of "
        f"{source.path}, so it has no trials and no profiles of its own." in said
    )
    assert "No profiles were taken in this run." in said
    assert "allowed were" not in said


def test_the_same_target_again_replaces_its_answer(source: RunFolder, tmp_path: Path) -> None:
    first = retarget(source, tmp_path / "new", "0.7x").run()

    again = retarget(source, tmp_path / "new", "0.7x").run()

    assert again.finished.answer_hash == first.finished.answer_hash


def test_finalists_of_the_run_that_are_not_timed_again_are_counted(
    source: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.retime.retarget.ON_FRONT", 1)
    asked = retarget(source, tmp_path / "new", "0.1x")

    document = asked.run()

    left = len(known(source)) - len(document.finished.finalists)
    assert isinstance(asked.listener, Quiet)
    assert left > 0
    assert asked.listener.notes[-1] == (
        f"{left} of the {len(known(source))} finalists of {source.path} are not timed again: by "
        "predicted latency they are neither the answer to 0.1x nor needed for the front"
    )


def test_no_note_is_left_where_all_finalists_are_timed_again(
    source: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.retime.retarget.ON_FRONT", 100)
    monkeypatch.setattr("tokensearch.retime.retarget.UNDER", 100)
    asked, timed = retarget(source, tmp_path / "new", "10x"), list[KnownPolicy]()

    def note(some: Sequence[KnownPolicy], *args: Any, **options: Any) -> Any:
        timed.extend(some)
        return confirm_known(some, *args, **options)

    monkeypatch.setattr("tokensearch.retime.retarget.confirm_known", note)

    asked.run()

    assert isinstance(asked.listener, Quiet)
    assert len(timed) == len(known(source))
    assert not any("not timed again" in note for note in asked.listener.notes)


def doubts(asked: Retarget) -> list[str]:
    """Cautions about where the run searched."""
    return [one for one in asked.run().finished.cautions if "tokensearch run --from" in one]


def test_a_target_slower_than_the_search_ever_proposed_is_doubted(
    source: RunFolder, tmp_path: Path
) -> None:
    assert doubts(retarget(source, tmp_path / "new", "0.8x")) == [
        "the run proposed nothing slower than about 0.60x, and 0.80x is allowed now, where more "
        f"accurate schedules may be: search with `tokensearch run --from {source.front}`"
    ]


def test_a_target_faster_than_anything_of_the_run_is_doubted(
    source: RunFolder, tmp_path: Path
) -> None:
    (said,) = doubts(retarget(source, tmp_path / "new", "0.01x"))

    assert said.startswith("the run holds nothing faster than about ")


@pytest.mark.parametrize("target", ["0.6x", "0.55x", "1x", "20ms"])
def test_a_target_where_the_run_searched_is_not_doubted(
    source: RunFolder, tmp_path: Path, target: str
) -> None:
    assert doubts(retarget(source, tmp_path / "new", target)) == []


def test_there_are_three_stages_beside_the_sweep(source: RunFolder, tmp_path: Path) -> None:
    asked = retarget(source, tmp_path / "new", "0.7x")

    asked.run()

    assert asked.listener.stages == [
        "timing the baseline",
        "timing schedules of the run side by side",
        "timing the answer beside what it is compared with",
    ]


def test_a_cost_table_of_the_same_cell_is_not_swept_again(
    source: RunFolder, damaged: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = timing()
    monkeypatch.setattr("tokensearch.retime.retarget.make_forecast", latency_model.make_forecast)
    images = torch.randn(4, 3, 32, 32)
    table = sweep(clock.model, images=images, cell=clock.cell, seconds=0.1)
    save_costs(table, damaged.costs)
    asked = retarget(damaged, tmp_path / "new", "0.7x", clock)

    asked.run()

    assert not any("sweeping" in stage for stage in asked.listener.stages)
    assert (tmp_path / "new" / "costs.json").is_file()


def test_worth_timing_are_the_best_that_may_meet_the_target_and_the_front(
    source: RunFolder,
) -> None:
    members = known(source)
    forecast = Forecast(mac_share, 0.05)

    goal = Goal(parse_target("0.5x"))
    chosen = select_to_time(members, forecast, goal, target_ratio=0.5, objective="kl")

    assert any(not one.policy.reduces for one in chosen)
    under = [one for one in members if mac_share(one.policy) <= 0.5]
    best = sorted(under, key=lambda one: -trial_value(one.finalist.select, "kl"))
    assert set(best[:3]) <= set(chosen)
    assert min(members, key=lambda one: mac_share(one.policy)) in chosen


def spoil(path: Path, part: str, value: object) -> None:
    document = json.loads(path.read_text())
    place = document
    *outer, last = part.split(".")
    for name in outer:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(document))


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        read_finished(RunFolder(tmp_path / "none"))

    assert str(raised.value) == f"{tmp_path / 'none'} does not exist"


def test_a_run_that_has_not_ended_is_refused(damaged: RunFolder) -> None:
    spoil(damaged.run, "result", None)

    with pytest.raises(RunError) as raised:
        read_finished(damaged)

    assert str(raised.value) == (
        f"the search in {damaged.path} has not ended; its own command goes on with it"
    )


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("settings", {"target": "0.5x"}, "settings.model is missing"),
        ("settings", [], r"settings is \[\]; it must be an object"),
        (
            "settings.target",
            "fast",
            "settings.target is no target: latency target 'fast'",
        ),
        ("result.baseline_ms", 0, "result.baseline_ms is 0; it must be a number from 1e-09"),
        ("result", {}, "result.outcome is missing"),
        ("result.finalists", [], "lacks the baseline among its finalists"),
        ("result.finalists", [{}], r"result.finalists\[0\].schedule_hash is missing"),
        ("result.finalists", 7, "result.finalists is 7; it must be a list"),
    ],
)
def test_a_damaged_run_is_refused(
    damaged: RunFolder, part: str, value: object, message: str
) -> None:
    spoil(damaged.run, part, value)

    with pytest.raises(TokensearchError, match=message) as raised:
        read_finished(damaged)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the trial sha256:"),
        ("{torn", "the file is not JSON"),
        ("[1, 2]\n", "the file holds a list, not an object"),
        ('{"number": 0}\n', "origin is missing"),
    ],
)
def test_damaged_trials_are_refused(damaged: RunFolder, text: str, message: str) -> None:
    damaged.trials.write_text(text)

    with pytest.raises(RunError, match=message):
        read_finished(damaged)


def test_a_retargeted_run_names_the_one_that_it_is_from(source: RunFolder, tmp_path: Path) -> None:
    retarget(source, tmp_path / "new", "0.7x").run()

    with pytest.raises(RunError) as raised:
        read_finished(RunFolder(tmp_path / "new"))

    assert str(raised.value) == (
        f"{tmp_path / 'new'} was itself retargeted from {source.path}; name that folder"
    )


def test_the_folder_of_the_run_itself_is_refused(source: RunFolder) -> None:
    before = source.run.read_bytes()

    with pytest.raises(RunError, match="is the run itself; name another folder with --out"):
        retarget(source, source.path / "." / "profiles" / "..", "0.7x").run()

    assert source.run.read_bytes() == before


def test_the_folder_of_another_run_is_refused(source: RunFolder, damaged: RunFolder) -> None:
    before = damaged.run.read_bytes()

    with pytest.raises(RunError, match="holds a run of its own; name another folder with --out"):
        retarget(source, damaged.path, "0.7x").run()

    assert damaged.run.read_bytes() == before


def test_a_model_of_another_geometry_is_refused_before_anything_is_written(
    source: RunFolder, tmp_path: Path
) -> None:
    other = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, num_heads=3, depth=4)
    clock = replace(timing(), model=other.eval(), _copy=[])

    with pytest.raises(PolicyError, match="was made for tiny with blocks 6; "):
        retarget(source, tmp_path / "new", "0.7x", clock).run()

    assert not (tmp_path / "new").exists()


def test_the_baseline_is_known(source: RunFolder) -> None:
    baseline = read_finished(source).baseline

    assert baseline == Policy(baseline.model)
