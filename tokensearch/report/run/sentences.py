"""The answer of a run in sentences, and what limits it."""

from tokensearch.policy import is_control, is_published
from tokensearch.policy.answer import MARGIN
from tokensearch.records.comparability import contradicts
from tokensearch.records.measurements import Caution, PairedAccuracy
from tokensearch.records.run_result import Finalist, RunDocument, RunResult
from tokensearch.report import text
from tokensearch.report.run.alternatives import (
    alternative_sentences,
    more_or_less,
    pace,
    same_images,
    settings_sentences,
)
from tokensearch.report.run.bounds import (
    describe_unkept_losses,
    keeps_latency,
    may_keep_latency,
    measure_drop,
)
from tokensearch.report.run.result import (
    alike_as,
    find_best_preset,
    judges_embeddings,
    measure_of,
    name_finalist,
    target_ratio_beside,
)
from tokensearch.stats.interval import paired_difference

FAR = 10  # times the target: from here on a percentage says less than a factor


def answer_sentences(run: RunDocument) -> tuple[str, ...]:
    """Return the answer as sentences, the most important first."""
    answer, measure = run.finished.answer, measure_of(run)
    if answer is None:
        return (
            target_sentence(run),
            *contradiction_sentences(run),
            preset_sentence(run),
            *alternative_sentences(run),
        )
    if not answer.policy.reduces:
        return (target_sentence(run), f"Its {_standing(answer, measure)}.")
    return (
        target_sentence(run),
        cost_sentence(answer, measure),
        *promising_sentences(run),
        *contradiction_sentences(run),
        preset_sentence(run),
        *rival_sentences(run),
        *alternative_sentences(run),
        *settings_sentences(run),
    )


def target_sentence(run: RunDocument) -> str:
    """Say whether what was asked for is met, and by what margin."""
    result, asked = run.finished, _asked(run)
    if result.outcome == "unreduced":
        return f"Target met without reducing anything: {asked}; {_only_baseline(run)}."
    fastest = result.answer or _fastest(result)
    reduces = any(finalist.policy.reduces for finalist in result.finalists)
    if fastest is None or (run.retargeted and not reduces):
        return f"Target not met: {asked}; {_why_nothing(run, reduces=reduces)}."
    who = f"the fastest finalist, {name_finalist(fastest)},"
    if result.answer:
        who = f"the answer{_as_good(run)}"
    took = f"{who} takes {_times(fastest)}{_margin(run, fastest)}"
    match result.outcome:
        case "met":
            return f"Target met: {asked}; {took}."
        case "missed":
            why = _too_lossy(run)
            return (
                f"Target not met: {asked}; {took}{why}. The front below is the best that was found."
            )
        case "ambiguous":
            return f"Target too close to call: {asked}; {took}. {_way_out(run, fastest)}"


def _why_nothing(run: RunDocument, *, reduces: bool) -> str:
    """Say why no policy is faster than the baseline, and what to do."""
    result = run.finished
    if not reduces and run.retargeted:
        return "the front holds the baseline alone: search again with more --minutes or --trials"
    if not reduces and result.trials.complete + result.trials.raced <= 1:  # that of the baseline
        return (
            "there was no time to try anything but the baseline: allow more --minutes or --trials"
        )
    first = "stop other work on the machine and repeat, or "
    cautions = {each for finalist in result.finalists for each in finalist.comparison.cautions}
    disturbed = bool(cautions & {Caution.BUSY, Caution.WIDE_SPREAD, Caution.DRIFT})
    return (
        f"but for controls, nothing that was confirmed is faster than the baseline, so "
        f"{first if disturbed else ''}search longer"
    )


def _asked(run: RunDocument) -> str:
    """What was asked for, in words."""
    target, settings, parts = run.settings.target, run.settings, list[str]()
    if target is not None:
        parts.append(f"{target} for a pass of {text.count(run.cell.batch, 'image')}")
        if not target.relative:  # a share is judged by ratios: no milliseconds to confuse it
            assert run.finished.limit_ms is not None  # there is a target
            parts.append(text.ms(run.finished.limit_ms))
    if settings.max_drop is not None:
        parts.append(f"at most {text.points(settings.max_drop)} lost")
    if settings.max_divergence is not None:
        parts.append(_largest_divergence(run, settings.max_divergence))
    return ", ".join(parts)


def _largest_divergence(run: RunDocument, most: float) -> str:
    if judges_embeddings(run):
        return f"a cosine of at least {text.cosine(1 - most)}"
    return f"at most {text.nats(most)} of divergence"


def _only_baseline(run: RunDocument) -> str:
    """Say why nothing is reduced."""
    if not run.settings.goal.bounded:
        return f"the baseline takes {text.ms(run.finished.baseline_ms)}"
    return f"no faster policy loses so little for certain; {_images_hint(run)}"


def _images_hint(run: RunDocument) -> str:
    split = run.data.splits.get("select")
    images = 0 if split is None else split.images
    cut = split is not None and (split.of or 0) > images  # there was no time for all of them
    more = "allow more --minutes" if cut else "give more --images"
    if run.retargeted:  # it has neither option
        more = "search anew on more images"
    return (
        f"losses are judged on {text.count(images, 'image')} (select), where 0 points are known "
        f"to {text.points(_least_loss_known(run, images))}: {more} to know better"
    )


def _least_loss_known(run: RunDocument, images: int) -> float:
    """Return the loss that cannot be ruled out of a policy that is right on the same images."""
    baseline = next(f for f in run.finished.finalists if not f.policy.reduces)
    unchanged = measure_drop(run, baseline)
    return -paired_difference(0, 0, images)[0] if unchanged is None else unchanged.high


def _too_lossy(run: RunDocument) -> str:
    """Say of what may be fast enough which loses least, and what bound that breaks."""
    fast = [
        finalist
        for finalist in run.finished.finalists
        if finalist.policy.reduces and may_keep_latency(run, finalist)
    ]
    if not fast or not run.settings.goal.bounded:
        return ""
    least = min(fast, key=lambda finalist: finalist.select.divergence)
    losses = describe_unkept_losses(run, least)
    if not losses:
        return ""
    return (
        f"; of those that may be fast enough, {name_finalist(least)} loses least: "
        f"{' and '.join(losses)}"
    )


def _way_out(run: RunDocument, answer: Finalist) -> str:
    """Say which bound is not kept for certain, and what helps."""
    losses, said = describe_unkept_losses(run, answer), list[str]()
    if losses:
        named = " and ".join(losses)
        said.append(f"Its loss is not surely within bounds, {named}; {_images_hint(run)}")
    if not losses or not keeps_latency(run, answer):
        said.append(
            f"{_doubt_of(run, answer)}. Time it again on a quieter machine, or allow more "
            f"--confirm-seconds"
        )
    return " ".join(f"{sentence}." for sentence in said)


def _doubt_of(run: RunDocument, answer: Finalist) -> str:
    """Say why its timing leaves the target open."""
    comparison = answer.comparison
    across = comparison.low <= target_ratio_beside(run, comparison) <= comparison.high
    if not across and Caution.BUSY in comparison.cautions:
        return "Other work ran on the machine, so that even this interval does not settle it"
    return "The timing does not settle it"


def _as_good(run: RunDocument) -> str:
    """Say of how many the answer is the fastest."""
    alike = len(run.finished.as_good or ())
    if alike < 2:
        return ""
    return f", the fastest of {alike} policies {alike_as(run)} as the best,"


def cost_sentence(finalist: Finalist, measure: str) -> str:
    """Say what a policy costs in right answers, and whether that is significant."""
    change, proof = finalist.paired.interval, text.probability(finalist.paired.p_value)
    now = _standing(finalist, measure)
    if change.value == 0:
        moved = f"as without reduction, to within {text.points(change.reach)}"
    elif change.value < 0:
        moved = f"{text.points_interval(-change)} below that without reduction"
    else:
        moved = f"{text.points_interval(change)} above that without reduction"
    significant = "significant" if finalist.paired.significant else "not significant"
    what = "difference" if change.value == 0 else "loss" if change.value < 0 else "gain"
    images = text.count(finalist.report.images, "image")
    return f"Its {now}, {moved}; on the same {images} the {what} is {significant} ({proof})."


def promising_sentences(run: RunDocument) -> tuple[str, ...]:
    """Name what is better than the answer, and why it is not sure to be what was asked for."""
    promising = run.finished.finalist(run.finished.promising)
    if promising is None:
        return ()
    how, answer = "faster", run.finished.answer
    if answer is not None and not run.settings.goal.bounded:
        closer = promising.select.divergence < answer.select.divergence
        how = f"{'closer to the baseline' if closer else 'right more often'} on select"
    doubts, remedies = [*describe_unkept_losses(run, promising)], list[str]()
    if doubts:
        remedies.append(_images_hint(run))
    if not doubts or not keeps_latency(run, promising):
        doubts.append(_latency_doubt(run, promising))
        remedies.append("allow more --confirm-seconds on a quiet machine")
    return (
        f"Likely better: {_named(promising)}, which is {how}. It is not sure to be what was asked "
        f"for: {' and '.join(doubts)}; {', and '.join(remedies)}.",
    )


def _latency_doubt(run: RunDocument, finalist: Finalist) -> str:
    """Say why its timing leaves open whether it is fast enough."""
    timed, asked = finalist.comparison, target_ratio_beside(run, finalist.comparison)
    if finalist.earlier is not None and contradicts(finalist.earlier, timed):
        return "its timings contradict each other"
    if Caution.BUSY in timed.cautions:
        return "other programs worked on the machine while it was timed"
    if timed.high > asked:
        return f"it may take up to {timed.high:.3f}x where {asked:.3f}x is asked"
    return "its milliseconds do not settle it"


def preset_sentence(run: RunDocument) -> str:
    """Compare the answer with the best published schedule that meets the target."""
    rival, answer = run.finished.best_preset, run.finished.answer
    preset = find_best_preset(run.finished)
    if rival is None or preset is None:
        published = [f for f in run.finished.finalists if is_published(f.origin)]
        if not published:
            return "No published preset is among the finalists."
        nearest = min(published, key=lambda finalist: finalist.comparison.ratio)
        return (
            f"No published preset among the finalists meets the target; the fastest is "
            f"{_named(nearest)}."
        )
    if answer is None:
        return f"A published preset {_meets(preset, run)} the target: {_named(preset)}."
    best = f"the best published finalist that {_meets(preset, run)} the target, {_named(preset)}"
    if preset.schedule_hash == answer.schedule_hash:
        return f"It is {best}: the search found nothing better."
    return _against(best, preset, rival.lead, run)


def rival_sentences(run: RunDocument) -> tuple[str, ...]:
    """Compare the answer with a preset of its accuracy, and with schedules drawn at random."""
    result, answer = run.finished, run.finished.answer
    said = []
    equal = result.finalist(result.equal_preset.schedule_hash) if result.equal_preset else None
    best = result.best_preset.schedule_hash if result.best_preset else None
    if answer and equal and equal.schedule_hash not in {best, answer.schedule_hash}:
        speed = pace(answer.comparison.interval, equal.comparison.interval)
        said.append(
            f"The fastest published finalist at least {alike_as(run)} is {_named(equal)}: the "
            f"answer is {speed}."
        )
    rival = result.best_random
    drawn = None if rival is None else result.finalist(rival.schedule_hash)
    if answer and rival and drawn:
        if drawn.schedule_hash == answer.schedule_hash:
            said.append("It was drawn at random: the search found nothing better.")
        else:
            name = f"the best random one that {_meets(drawn, run)} the target, {_named(drawn)}"
            said.append(_against(name, drawn, rival.lead, run))
    return tuple(said)


def contradiction_sentences(run: RunDocument) -> tuple[str, ...]:
    """Say of what was timed before that it contradicts the timing of now."""
    return tuple(
        f"The timings of {name_finalist(finalist)} contradict each other: before it took "
        f"{text.ratio_interval(finalist.earlier.interval)}, now "
        f"{text.ratio_interval(finalist.comparison.interval)}; time it again on a quiet machine."
        for finalist in run.finished.finalists
        if finalist.earlier is not None and contradicts(finalist.earlier, finalist.comparison)
    )


def _named(finalist: Finalist) -> str:
    accuracy = text.percent_interval(finalist.report.interval)
    return f"{name_finalist(finalist)} ({_times(finalist)}, {accuracy})"


def _meets(finalist: Finalist, run: RunDocument) -> str:
    """Say how a finalist stands to what was asked: by its own interval, or as the answer."""
    result, target = run.finished, target_ratio_beside(run, finalist.comparison)
    answer = result.answer
    if answer is not None and answer.schedule_hash == finalist.schedule_hash:
        return "meets" if result.outcome == "met" else "may meet"
    if finalist.comparison.low > target:
        return "comes nearest to"
    surely = finalist.comparison.high <= target and not run.settings.goal.bounded
    return "meets" if surely else "may meet"


def _against(best: str, rival: Finalist, lead: PairedAccuracy | None, run: RunDocument) -> str:
    """Say who is more accurate and who is faster, and what of it is significant."""
    answer = run.finished.answer
    assert answer is not None  # it is what is compared
    speed = pace(answer.comparison.interval, rival.comparison.interval)
    shares = answer.report.share, rival.report.share
    change = shares[0] - shares[1] if lead is None else lead.difference
    more = more_or_less(change, measure_of(run))
    if lead is None:
        return f"Beside {best}, it is {speed}, with {more}, not compared image by image."
    figures = text.signed_points_interval(lead.interval)
    more += f" ({figures} {same_images(lead, *shares)}, {text.probability(lead.p_value)})"
    if lead.significant and change > 0:
        verb = "gives more than" if speed.startswith("slower") else "beats"
        return f"It {verb} {best}: {more}, and is {speed}."
    if lead.significant:
        return f"It does not beat {best}: it has {more}, and is {speed}."
    if speed.startswith("faster") and lead.low > -MARGIN:
        surely = f"worse by less than {text.points(MARGIN)} for certain"
        return f"It beats {best}, in latency: it is {speed}, with {more}, {surely}."
    if speed.startswith("faster"):
        return f"It is {speed} than {best}, with {more}; that it is as accurate is not shown."
    unsure = "" if more.startswith("the same") else ", which is not significant"
    return f"It is not shown to beat {best}: it has {more}{unsure}, and is {speed}."


def _times(finalist: Finalist) -> str:
    timed = finalist.comparison
    if not finalist.policy.reduces:
        return text.ms(timed.candidate.median_ms)
    # The baseline timed beside it, not the run's: on a machine that drifts they differ.
    both = f"{text.ms(timed.candidate.median_ms)} against {text.ms(timed.baseline.median_ms)}"
    return f"{both} for the baseline, {text.ratio_interval(timed.interval)}"


def _margin(run: RunDocument, finalist: Finalist) -> str:
    """How far from the target, by the ratio timed in turn."""
    target, timed, limit_ms = run.settings.target, finalist.comparison, run.finished.limit_ms
    if target is None or limit_ms is None:
        return ""
    share = timed.ratio / target.number if target.relative else timed.candidate.median_ms / limit_ms
    if share >= FAR:
        return f", {text.count(round(share))} times the target"
    return f", {text.percent(abs(1 - share))} {'under' if share <= 1 else 'over'} the target"


def _standing(finalist: Finalist, measure: str) -> str:
    return f"{measure} is {text.percent_interval(finalist.report.interval)}"


def _fastest(result: RunResult) -> Finalist | None:
    """The fastest that is no control: what the search could offer."""
    offered = (finalist for finalist in result.finalists if not is_control(finalist.origin))
    return min(offered, key=lambda finalist: finalist.comparison.ratio, default=None)
