from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.report.fixtures import BASELINE_MS, MILD, comparison, latency, run_document
from tokensearch.errors import RunError
from tokensearch.policy import Outcome, parse_target
from tokensearch.records.measurements import Caution, PairedAccuracy
from tokensearch.records.run_result import (
    BaselineMoved,
    ChoiceFigures,
    Finalist,
    Rival,
    RunDocument,
    TrialCounts,
)
from tokensearch.report.run.alternatives import same_images
from tokensearch.report.run.limitations import limitation_lines
from tokensearch.report.run.sentences import (
    cost_sentence,
    preset_sentence,
    promising_sentences,
    rival_sentences,
    target_sentence,
)
from tokensearch.stats.proportions import wilson

BETTER = (
    "Likely better: found b19998e4 (28.8 ms against 40.0 ms for the baseline, 0.49x [0.48, 0.50], "
    "97.9 % [97.1, 98.6]), which is closer to the baseline on select. It is not sure to be what "
    "was asked for: {}; allow more --confirm-seconds on a quiet machine."
)
ASKED = "0.5x for a pass of 8 images"
TOOK = "the answer takes 19.2 ms against 40.0 ms for the baseline, 0.48x [0.47, 0.49]"
FASTEST = TOOK.replace(
    "the answer", "the answer, the fastest of 2 policies as accurate as the best,"
)
TOME = (
    "the best published finalist that may meet the target, tome-r16 "
    "(19.8 ms against 40.0 ms for the baseline, 0.50x [0.49, 0.51], 95.2 % [94.4, 95.9])"
)


def changed(run: RunDocument, **changes: object) -> RunDocument:
    """The same run with another result."""
    return replace(run, result=replace(run.finished, **changes))


def answer() -> Finalist:
    finalist = run_document().finished.answer
    assert finalist is not None
    return finalist


def beside_a_promising(change: Callable[[Finalist], Finalist]) -> RunDocument:
    """A run that calls the milder policy, changed so, likely better than its answer."""
    run = run_document()
    finalists = (
        change(f) if f.schedule_hash == MILD.schedule_hash else f for f in run.finished.finalists
    )
    return changed(run, finalists=tuple(finalists), promising=MILD.schedule_hash)


@pytest.mark.parametrize(
    ("cautions", "doubt"),
    [
        ((), "it may take up to 0.504x where 0.500x is asked"),
        ((Caution.BUSY,), "other programs worked on the machine while it was timed"),
    ],
)
def test_what_is_likely_better_than_the_answer_is_named_with_its_doubt(
    cautions: tuple[Caution, ...], doubt: str
) -> None:
    def doubtful(finalist: Finalist) -> Finalist:
        timed = at_ratio(finalist, 0.49, 0.476, 0.504)
        return replace(timed, comparison=replace(timed.comparison, cautions=cautions))

    assert promising_sentences(beside_a_promising(doubtful)) == (BETTER.format(doubt),)
    assert promising_sentences(run_document()) == ()


def test_what_is_right_more_often_is_not_called_closer_to_the_baseline() -> None:
    (said,) = promising_sentences(
        beside_a_promising(
            lambda f: replace(at_ratio(f, 0.49, 0.476, 0.504), select=replace(f.select, kl=0.5))
        )
    )

    assert "which is right more often on select. It is not sure" in said


def test_timings_that_contradict_each_other_leave_it_open_what_is_better() -> None:
    (said,) = promising_sentences(
        beside_a_promising(
            lambda f: replace(at_ratio(f, 0.45, 0.44, 0.46), earlier=comparison(0.6))
        )
    )

    assert "asked for: its timings contradict each other; allow more" in said


def lead(percent: float, low: float, high: float, p_value: float) -> PairedAccuracy:
    """The answer's lead over the best preset, in points."""
    points = {"difference": percent / 100, "low": low / 100, "high": high / 100}
    return replace(answer().paired, **points, p_value=p_value)


PROVEN = lead(2.1, 1.5, 2.7, 0.0215)


def at_ratio(finalist: Finalist, value: float, low: float, high: float) -> Finalist:
    return replace(
        finalist, comparison=replace(finalist.comparison, ratio=value, low=low, high=high)
    )


def against(
    right: int, ratio: tuple[float, float, float], lead: PairedAccuracy | None = PROVEN
) -> str:
    """What is said of an answer with so many right answers of 1000, this ratio, and this lead."""
    run, first = run_document(), answer()
    one = at_ratio(replace(first, report=replace(first.report, right=right)), *ratio)
    result = run.finished
    assert result.best_preset is not None
    others = (finalist for finalist in result.finalists if finalist.policy != one.policy)
    return preset_sentence(
        changed(run, finalists=(one, *others), best_preset=replace(result.best_preset, lead=lead))
    )


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ("met", f"Target met: {ASKED}; {FASTEST}, 4.0 % under the target."),
        (
            "missed",
            "Target not met: 0.4x for a pass of 8 images; the fastest finalist, "
            "found 99b913f5, takes 19.2 ms against 40.0 ms for the baseline, 0.48x [0.47, 0.49], "
            "20.0 % over the target. The front below is the best that was found.",
        ),
        (
            "ambiguous",
            f"Target too close to call: 0.485x for a pass of 8 images; {TOOK}, 1.0 % under "
            "the target. The timing does not settle it. Time it again on a quieter machine, or "
            "allow more --confirm-seconds.",
        ),
        (
            "unreduced",
            "Target met without reducing anything: 50ms for a pass of 8 images, 50.0 ms; "
            "the baseline takes 40.0 ms.",
        ),
    ],
)
def test_every_outcome_is_said_in_words(outcome: Outcome, sentence: str) -> None:
    assert target_sentence(run_document(outcome=outcome)) == sentence


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ("met", f"Target met: at most 1.0 points lost; {TOOK}."),
        (
            "ambiguous",
            f"Target too close to call: at most 1.0 points lost; {TOOK}. Its loss is not surely "
            "within bounds, points lost unknown where 1.0 points may be; losses are judged on 500 "
            "images (select), where 0 points are known to 0.6 points: give more --images to know "
            "better.",
        ),
        (
            "unreduced",
            "Target met without reducing anything: at most 1.0 points lost; no faster policy loses "
            "so little for certain; losses are judged on 500 images (select), where 0 points are "
            "known to 0.6 points: give more --images to know better.",
        ),
    ],
)
def test_a_bound_on_the_loss_is_answered_in_words(outcome: Outcome, sentence: str) -> None:
    run = run_document(outcome=outcome)
    asked = replace(run.settings, target=None, max_drop=0.01)
    bounded = changed(replace(run, settings=asked), limit_ms=None, as_good=())

    assert target_sentence(bounded) == sentence


def test_a_target_that_is_missed_by_far_is_told_as_a_factor() -> None:
    run = run_document(outcome="missed")
    asked = replace(run.settings, target=parse_target("0.0001x"))

    said = target_sentence(replace(run, settings=asked))

    assert "0.48x [0.47, 0.49], 4,800 times the target. The front below" in said
    assert "%" not in said


def test_a_retargeted_run_names_no_option_that_retarget_lacks() -> None:
    run = run_document(outcome="unreduced")
    asked = replace(run.settings, target=None, max_drop=0.01)
    bounded = changed(replace(run, settings=asked, retargeted="runs/other"), limit_ms=None)

    assert target_sentence(bounded).endswith(": search anew on more images to know better.")


def with_losses(run: RunDocument, lost: int) -> RunDocument:
    """The same run, whose finalists are wrong on so many more images of `select` each."""
    finalists = [
        replace(
            finalist,
            choice=ChoiceFigures(f"{(1 << finalist.select.images) - (1 << lost * index):x}", 0, 1),
        )
        for index, finalist in enumerate(
            sorted(run.finished.finalists, key=lambda finalist: finalist.policy.reduces)
        )
    ]
    return changed(run, finalists=tuple(finalists))


@pytest.mark.parametrize(
    ("outcome", "points", "ratio", "said"),
    [
        ("ambiguous", 99.0, 0.49, "The timing does not settle it"),
        ("ambiguous", 1.0, 0.47, "Its loss is not surely within bounds"),
        ("missed", 0.1, 0.47, "loses least"),
    ],
)
def test_a_bound_that_is_not_kept_is_named_and_no_other(
    outcome: Outcome, points: float, ratio: float, said: str
) -> None:
    run = with_losses(run_document(outcome=outcome), 10)
    target = parse_target(f"{ratio + 0.001}x" if "timing" in said else "0.6x")
    asked = replace(run.settings, target=target, max_drop=points / 100)

    sentence = target_sentence(replace(run, settings=asked))

    assert said in sentence
    assert ("The timing does not settle it" in sentence) == ("timing" in said)
    assert ("where" in sentence) == ("timing" not in said)


def test_a_run_that_tried_nothing_says_so_and_what_to_do() -> None:
    run = run_document(outcome="missed")
    alone = tuple(finalist for finalist in run.finished.finalists if not finalist.policy.reduces)
    only_baseline = TrialCounts(complete=1)
    tried_nothing = changed(run, finalists=alone, best_preset=None, trials=only_baseline)

    assert target_sentence(tried_nothing) == (
        "Target not met: 0.4x for a pass of 8 images; there was no time to try anything but the "
        "baseline: allow more --minutes or --trials."
    )
    assert preset_sentence(tried_nothing) == "No published preset is among the finalists."
    in_vain = changed(tried_nothing, trials=TrialCounts(complete=2))
    assert "nothing that was confirmed is faster than the baseline" in target_sentence(in_vain)
    retargeted = replace(tried_nothing, retargeted="runs/other")
    assert "the front holds the baseline alone: search again" in target_sentence(retargeted)


def test_where_timings_were_disturbed_searching_longer_is_not_the_first_remedy() -> None:
    run = run_document(outcome="missed")
    alone = tuple(finalist for finalist in run.finished.finalists if not finalist.policy.reduces)
    in_vain = changed(run, finalists=alone, best_preset=None, trials=TrialCounts(complete=3))
    disturbed = tuple(
        replace(one, comparison=replace(one.comparison, cautions=(Caution.BUSY,))) for one in alone
    )

    assert target_sentence(in_vain).endswith("than the baseline, so search longer.")
    assert target_sentence(changed(in_vain, finalists=disturbed)).endswith(
        "so stop other work on the machine and repeat, or search longer."
    )


def test_a_preset_of_the_answers_accuracy_and_a_random_one_are_compared_with_it() -> None:
    run = run_document()
    mild = next(f for f in run.finished.finalists if f.origin == "seed")
    slow = replace(mild, origin="ppt-r50-pool")
    drawn = replace(run.finished.finalists[3], origin="random")
    rivals = {
        "finalists": (*run.finished.finalists[:2], slow, drawn, run.finished.finalists[4]),
        "equal_preset": Rival("ppt-r50-pool", slow.schedule_hash, None),
        "best_random": Rival("random", drawn.schedule_hash, PROVEN),
    }

    equal, random = rival_sentences(changed(run, **rivals))

    assert equal.startswith(
        "The fastest published finalist at least as accurate is ppt-r50-pool (28.8 ms"
    )
    assert equal.endswith(": the answer is faster by 33.3 %.")
    assert random.startswith("It beats the best random one that meets the target, random ")
    assert rival_sentences(run) == ()


def test_a_significant_loss_is_called_significant() -> None:
    assert cost_sentence(answer(), "accuracy") == (
        "Its accuracy is 97.3 % [96.5, 98.0], 0.8 points [0.2, 1.4] below that without "
        "reduction; on the same 1,000 images the loss is significant (p = 0.021)."
    )


def test_a_gain_within_its_interval_is_not_significant() -> None:
    gained = replace(answer(), paired=lead(0.2, -0.1, 0.5, 0.2))

    assert cost_sentence(gained, "accuracy") == (
        "Its accuracy is 97.3 % [96.5, 98.0], 0.2 points [-0.1, 0.5] above that without "
        "reduction; on the same 1,000 images the gain is not significant (p = 0.200)."
    )


def test_an_answer_better_and_as_fast_beats_the_preset() -> None:
    assert preset_sentence(run_document()) == (
        f"It beats {TOME}: 2.1 points more accuracy (+2.1 points [+1.5, +2.7] on the same images, "
        "p = 0.021), and is as fast within the noise."
    )


def test_a_faster_answer_beats_the_preset_in_latency() -> None:
    same = lead(0.4, -0.3, 1.1, 0.3)
    said = against(956, (0.40, 0.39, 0.41), same)

    assert said == (
        f"It beats {TOME}, in latency: it is faster by 19.4 %, with 0.4 points more accuracy "
        "(+0.4 points [-0.3, +1.1] on the same images, p = 0.300), worse by less than 0.5 points "
        "for certain."
    )


def test_a_faster_answer_that_may_be_worse_is_only_called_faster() -> None:
    doubtful = lead(-0.4, -1.1, 0.3, 0.3)
    said = against(948, (0.40, 0.39, 0.41), doubtful)

    assert said == (
        f"It is faster by 19.4 % than {TOME}, with 0.4 points less accuracy (-0.4 points [-1.1, "
        "+0.3] on the same images, p = 0.300); that it is as accurate is not shown."
    )


def test_neither_faster_nor_surely_better_is_not_shown_to_beat_the_preset() -> None:
    same = lead(0.4, -0.3, 1.1, 0.3)
    said = against(956, (0.49, 0.48, 0.50), same)

    assert said == (
        f"It is not shown to beat {TOME}: it has 0.4 points more accuracy (+0.4 points [-0.3, "
        "+1.1] on the same images, p = 0.300), which is not significant, and is as fast within the "
        "noise."
    )


@pytest.mark.parametrize(
    ("ratio", "speed"),
    [
        ((0.49, 0.48, 0.50), "as fast within the noise"),
        ((0.40, 0.39, 0.41), "faster by 19.4 %"),
    ],
)
def test_what_nobody_compared_on_the_same_images_is_called_so(
    ratio: tuple[float, float, float], speed: str
) -> None:
    said = against(956, ratio, None)

    assert said == (
        f"Beside {TOME}, it is {speed}, with 0.4 points more accuracy, not compared image by image."
    )


def test_a_slower_answer_does_not_beat_the_preset() -> None:
    said = against(973, (0.62, 0.61, 0.63))

    assert said == (
        f"It gives more than {TOME}: 2.1 points more accuracy (+2.1 points [+1.5, +2.7] on the "
        "same images, p = 0.021), and is slower by 25.0 %."
    )


def test_a_worse_answer_is_said_to_be_worse() -> None:
    lost = lead(-1.2, -2.0, -0.4, 0.004)
    said = against(940, (0.48, 0.47, 0.49), lost)

    assert said == (
        f"It does not beat {TOME}: it has 1.2 points less accuracy (-1.2 points [-2.0, -0.4] on "
        "the same images, p = 0.004), and is as fast within the noise."
    )


def test_a_preset_that_is_the_answer_is_not_claimed_as_found() -> None:
    run = run_document()
    assert run.finished.best_preset is not None
    same = changed(run, answer_hash=run.finished.best_preset.schedule_hash)

    assert preset_sentence(same) == (
        f"It is {TOME.replace('may meet', 'meets')}: the search found nothing better."
    )
    unsure = changed(same, outcome="ambiguous")
    assert preset_sentence(unsure) == f"It is {TOME}: the search found nothing better."


def test_a_preset_beyond_the_target_comes_nearest_to_it() -> None:
    run = run_document()
    preset = run.finished.best_preset
    assert preset is not None
    finalists = tuple(
        at_ratio(f, 0.6, 0.57, 0.63) if f.schedule_hash == preset.schedule_hash else f
        for f in run.finished.finalists
    )

    said = preset_sentence(changed(run, finalists=finalists))

    assert "the best published finalist that comes nearest to the target, tome-r16" in said


def test_a_target_that_no_preset_meets_is_said() -> None:
    assert preset_sentence(run_document(outcome="missed")) == (
        "No published preset among the finalists meets the target; the fastest is tome-r16 (19.8 "
        "ms against 40.0 ms for the baseline, 0.50x [0.49, 0.51], 95.2 % [94.4, 95.9])."
    )


def test_a_search_that_has_not_ended_has_no_result() -> None:
    with pytest.raises(RunError) as caught:
        target_sentence(replace(run_document(), result=None))

    assert str(caught.value) == (
        "the search of this run has not ended; the same command goes on with it"
    )


def test_a_preset_surely_under_the_target_is_said_to_meet_it() -> None:
    run = run_document()
    finalists = [
        at_ratio(finalist, 0.45, 0.44, 0.46) if finalist.origin == "tome-r16" else finalist
        for finalist in run.finished.finalists
    ]

    said = preset_sentence(changed(run, finalists=tuple(finalists)))

    assert said.startswith("It gives more than the best published finalist that meets the target,")


def test_a_control_is_never_called_published() -> None:
    run = run_document()
    control = next(one for one in run.finished.finalists if one.origin == "random-tome-r16")
    best = Rival(control.origin, control.schedule_hash, lead=None)

    said = preset_sentence(changed(run, best_preset=best))

    assert said.startswith("No published preset among the finalists meets the target; the fastest ")
    assert "random-tome-r16" not in said


def test_fewer_report_images_than_were_asked_for_are_said() -> None:
    run = run_document()
    splits = {**run.data.splits, "report": replace(run.data.report, of=5000)}
    fewer = replace(run, data=replace(run.data, splits=splits))

    said = " ".join(limitation_lines(fewer))

    assert f"has {run.data.report.images:,} images of the 5,000 that were asked for:" in said
    assert "asked for" not in " ".join(limitation_lines(run))


def moved_clause(run: RunDocument) -> str:
    (line,) = (line for line in limitation_lines(run) if "compare rows by their ratios" in line)
    return line.partition("; ")[2]


def test_a_baseline_that_was_timed_in_one_session_is_not_said_to_have_moved() -> None:
    still = BaselineMoved(search=0.052, finalists=0.0)

    assert moved_clause(changed(run_document(), baseline_moved=still)) == ""


def test_the_baseline_of_every_session_that_is_shown_counts_for_its_drift() -> None:
    still = BaselineMoved(search=0.0, finalists=0.0)
    run = changed(run_document(), baseline_moved=still)
    (first, *finalists), (other, *others) = run.finished.finalists, run.finished.alternatives
    earlier = replace(first.comparison, baseline=latency(1.1 * BASELINE_MS))
    later = replace(other.comparison, baseline=latency(1.2 * BASELINE_MS))

    for result, moved in (
        ({"finalists": (replace(first, earlier=earlier), *finalists)}, "10.0 %"),
        ({"alternatives": (replace(other, comparison=later), *others)}, "20.0 %"),
    ):
        assert moved_clause(changed(run, **result)) == (
            f"from session to session the baseline's moved by {moved}."
        )


def test_intervals_that_are_wider_than_wilsons_say_why() -> None:
    run, first = run_document(), answer()
    low, high = wilson(first.report.right / 2, first.report.images / 2)  # images by twos
    wide = replace(first, report=replace(first.report, low=low, high=high))
    others = (each for each in run.finished.finalists if each.policy != first.policy)

    said = " ".join(limitation_lines(changed(run, finalists=(wide, *others))))

    assert "intervals of the accuracy are Wilson intervals, widened here by 4" in said
    assert "Wilson" not in " ".join(limitation_lines(run))


def test_a_lead_that_is_not_the_difference_of_what_is_shown_says_why() -> None:
    """81.4 against 83.6 % are 2.1 points of 512 images."""
    right, other = 417 / 512, 428 / 512
    rounded = lead(100 * (right - other), -5.4, 1.2, 0.242)

    assert same_images(rounded, right, other) == "on the same images, before rounding"
    assert same_images(rounded, 0.82, other) == "on the same images"  # rounding is not why
    assert same_images(lead(2.0, 1.0, 3.0, 0.1), 0.84, 0.82) == "on the same images"


def test_a_target_that_only_a_busy_machine_leaves_open_says_so() -> None:
    run = run_document(outcome="ambiguous")
    first = answer()
    busy = replace(first.comparison, ratio=0.7, low=0.65, high=0.75, cautions=(Caution.BUSY,))
    others = (each for each in run.finished.finalists if each.policy != first.policy)

    said = target_sentence(changed(run, finalists=(replace(first, comparison=busy), *others)))

    assert "Other work ran on the machine, so that even this interval does not settle it." in said
