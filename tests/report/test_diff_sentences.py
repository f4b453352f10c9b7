from dataclasses import replace
from typing import Any

import pytest

from tests.report.ledgers import (
    AFTER,
    BEFORE,
    FLOOR,
    FULL,
    HALVED,
    SPEC,
    baseline,
    candidate,
    of_itself,
    of_known_terms,
    operator,
    work,
)
from tests.report.profiles import passes
from tokensearch.costs import Staircase, Tread
from tokensearch.diff.ledger import Ledger, Term, make_ledger
from tokensearch.policy import Policy, Prune
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import Backend, Latency
from tokensearch.records.profile import Operator, PhaseTime, Profile
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.stats.interval import Interval


def said(found: Ledger, about: str, staircase: Staircase | None = None) -> str:
    """The one sentence that has a word in it; nothing if there is none."""
    sentences = [one for one in ledger_sentences(found, staircase) if about in one]
    assert len(sentences) < 2
    return sentences[0] if sentences else ""


def changed(side: Profile, phase: str, block: int, ms: float) -> Profile:
    """The profile with another time of one phase, and so of the pass."""
    parts = [
        replace(item, passes_ms=passes(ms, 0.001 * ms))
        if (item.block, item.phase) == (block, phase)
        else item
        for item in side.stamped
    ]
    return replace(side, stamped=tuple(parts))


def test_the_verdict_comes_first_then_what_was_saved_spent_and_shifted() -> None:
    verdict, sums, closing, *_ = ledger_sentences(of_known_terms())

    assert verdict.startswith("halved takes 20.4 ms a pass, baseline 26.0 ms, 0.78x [0.7")
    assert verdict.endswith("]: faster.")
    assert sums.startswith("Of it: -7.80 ms [")
    assert "] saved by fewer tokens, +1.60 ms [" in sums
    assert "] spent on reducing them and +500 us [" in sums
    assert closing.startswith("The ledger closes to 1.8 % of the difference: its residual is +100")
    assert closing.endswith("], inside the noise.")


def test_the_other_way_round_time_is_added_by_more_tokens() -> None:
    sums = ledger_sentences(make_ledger(candidate(), baseline()))[1]

    assert sums.startswith("Of it: +7.80 ms [")
    assert "] added by more tokens, -1.60 ms [" in sums
    assert "] no longer spent on reducing them and -500 us [" in sums


def test_slower_is_said_as_plainly_as_faster() -> None:
    assert ledger_sentences(of_known_terms(plain_ms=30.0))[0].endswith("]: slower.")


def test_without_proof_neither_is_called_faster() -> None:
    found = of_known_terms(plain_ms=26.1)

    assert ledger_sentences(found)[0].endswith(
        ": neither is significantly faster; profile for longer (diff --seconds)."
    )


def test_a_ledger_that_does_not_close_says_by_how_much() -> None:
    closing = said(of_known_terms(plain_ms=23.0), "close")

    assert closing.startswith("The ledger does not close: +2.70 ms [")
    assert closing.endswith("], 90.0 % of the difference, belong to no term.")


def test_a_residual_inside_a_wide_noise_is_not_known_to_be_nothing() -> None:
    closing = said(of_known_terms(plain_ms=25.5, noise_ms=8.0), "close")

    assert closing.startswith("Not known whether the ledger closes: its residual of +5.2 ms [")
    assert closing.endswith(
        "] is 1022.1 % of the difference, inside the noise; profile for longer (diff --seconds)."
    )


def test_a_small_residual_closes_the_ledger_even_when_it_is_no_noise() -> None:
    found = of_known_terms()
    rest = Term("residual", None, None, Interval(0.1, 0.05, 0.15))

    closing = said(replace(found, by_kind=(*found.by_kind[:-1], rest)), "close")

    assert closing == (
        "The ledger closes to 1.8 % of the difference: its residual is +100 us [+50, +150]."
    )


def test_faster_without_a_term_outside_the_noise_is_said_to_have_no_known_cause() -> None:
    found = of_itself()
    shorter = Interval(-1.0, -1.5, -0.5)
    ratio = Interval(0.96, 0.94, 0.98)

    verdict = ledger_sentences(replace(found, difference=shorter, ratio=ratio))[0]

    assert verdict.endswith(": faster by 1.00 ms; no single term is outside the noise.")


def test_an_empty_ledger_says_how_large_a_change_would_have_been_seen() -> None:
    (sentence,) = ledger_sentences(of_itself())

    assert sentence.startswith(
        "Nothing differs beyond the noise: again takes 26.0 ms a pass, baseline 26.0 ms, 1.00x ["
    )
    assert sentence.endswith(
        " us to be seen; to see smaller ones, profile for longer (diff --seconds)."
    )


@pytest.mark.parametrize(
    ("plain_ms", "kernels_ms", "words"),
    [
        (
            26.0,
            (10.4, 10.4),
            "Launch-bound: the GPU works only 40.0 % of the candidate's pass (40.0 % of the "
            "baseline's), so fewer tokens cannot help; try --backend cudagraph, or a larger batch.",
        ),
        (
            26.0,
            (24.7, 10.4),
            "The candidate has become launch-bound: the GPU works only 40.0 % of the candidate's "
            "pass (95.0 % of the baseline's), so cutting more tokens cannot help; try --backend "
            "cudagraph.",
        ),
        (
            20.4,
            (10.4, 8.16),
            "Launches take their time: the GPU works only 40.0 % of the candidate's pass (40.0 % "
            "of the baseline's), and 60.0 % of the pass are gaps that fewer tokens do not shorten; "
            "try --backend cudagraph, or a larger batch.",
        ),
        (
            26.0,
            (24.7, 18.2),
            "Launches take their time: the GPU works only 70.0 % of the candidate's pass (95.0 % "
            "of the baseline's), and 30.0 % of the pass are gaps that fewer tokens do not shorten; "
            "try --backend cudagraph.",
        ),
        (20.4, (24.7, 19.38), ""),
    ],
)
def test_fewer_tokens_cannot_help_a_gpu_that_mostly_waits_and_gained_nothing(
    plain_ms: float, kernels_ms: tuple[float, float], words: str
) -> None:
    sides = [
        replace(side, operators=(operator((0, "mlp"), "gemm", ms, kernel=True),))
        for side, ms in zip((baseline(), candidate(plain_ms=plain_ms)), kernels_ms, strict=True)
    ]

    assert said(make_ledger(sides[0], sides[1]), "GPU") == words


def test_a_replayed_graph_is_not_told_to_become_one() -> None:
    kernels: tuple[Operator, ...] = (operator((0, "mlp"), "gemm", 5.0, kernel=True),)
    backend: Backend = "cudagraph"
    cell = replace(baseline().cell, backend=backend)
    sides = [replace(side, operators=kernels, cell=cell) for side in (baseline(), candidate())]

    assert said(make_ledger(sides[0], sides[1]), "GPU") == ""


def test_what_is_saved_is_held_against_what_counted_work_promises() -> None:
    sides = baseline(work=work(BEFORE)), candidate(work=work(FLOOR))

    assert said(make_ledger(*sides), "counted") == (
        "If time fell as counted work does, 7.80 ms would be saved: 100.0 % of it was."
    )


def test_time_that_does_not_follow_the_tokens_is_named() -> None:
    none_left = dict.fromkeys(AFTER, 0.0)
    sides = baseline(work=work(BEFORE)), candidate(work=work(none_left))

    assert said(make_ledger(*sides), "counted") == (
        "If time fell as counted work does, 26.0 ms would be saved: 30.0 % of it was, so most of "
        "the model's time here does not follow its tokens; try a larger batch."
    )


def test_a_block_whose_cut_does_not_pay_is_named_with_both_figures() -> None:
    assert said(of_known_terms(), "spends") == (
        "Block 3 spends more than it saves there and later: 400 us against 300 us."
    )


def test_several_such_blocks_share_a_sentence() -> None:
    dear = changed(candidate(), "merging", 1, 9.0)

    assert said(make_ledger(baseline(), dear), "each spend") == (
        "Blocks 1 (9.60 ms against 7.50 ms) and 3 (400 us against 300 us) each spend more than "
        "they save there and later."
    )


def test_proportional_attention_names_its_price_and_what_attention_runs_instead() -> None:
    sentence = said(make_ledger(baseline(sdpa="flash"), candidate(sdpa="math")), "Proportional")

    assert sentence.startswith("Proportional attention costs 2.7 % of the baseline's pass (+700 us")
    assert sentence.endswith(": the bias takes attention off its fast path (flash → math).")


def test_with_the_same_kernel_proportional_attention_costs_its_bias_alone() -> None:
    sentence = said(make_ledger(baseline(sdpa="flash"), candidate(sdpa="flash")), "Proportional")

    assert sentence.startswith("Proportional attention costs 0.8 % of the baseline's pass (+200 us")
    assert sentence.endswith(": its bias has to be made.")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FULL, replace(HALVED, proportional_attention=False)),
        (FULL, Policy(SPEC, (Prune(1, 50), Prune(3, 40)), proportional_attention=True)),
        (HALVED, HALVED),
    ],
    ids=["none", "pruning changes no sizes", "both"],
)
def test_only_a_mask_that_the_candidate_alone_has_is_blamed(before: Policy, after: Policy) -> None:
    sides = [
        replace(side, policy=policy_to_json(policy))
        for side, policy in ((baseline(sdpa="flash"), before), (candidate(sdpa="math"), after))
    ]

    assert said(make_ledger(sides[0], sides[1]), "Proportional") == ""


def test_a_mask_that_saves_time_is_not_said_to_cost_any() -> None:
    biased = baseline(
        stamped=(
            *baseline().stamped,
            PhaseTime(2, "bias", passes(2.0)),
            PhaseTime(0, "bias", passes(0.1)),
        )
    )

    assert said(make_ledger(biased, candidate()), "Proportional") == ""


def stairs(*treads: Tread, **cell: Any) -> Staircase:
    swept = replace(baseline().cell, **cell)
    return Staircase(swept, counts=(), measured_ms=(), error_ms=(), ms=(), treads=treads)


def tread(first: int, last: int, *, real: bool) -> Tread:
    return Tread(first, last, ms=1.0, error_ms=0.01, step_ms=0.2, real=real)


def test_counts_of_the_candidate_that_lie_on_a_significant_tread_are_named() -> None:
    treads_ = stairs(tread(33, 48, real=True), tread(49, 64, real=False), tread(65, 90, real=True))

    sentences = [
        one for one in ledger_sentences(of_known_terms(), treads_) if "cost as much" in one
    ]

    assert sentences == ["40 patch tokens cost as much as 48 here."]


def test_the_end_of_a_tread_costs_as_much_as_no_other_count() -> None:
    assert said(of_known_terms(), "cost as much", stairs(tread(40, 50, real=True))) == (
        "40 patch tokens cost as much as 50 here."
    )


def test_costs_of_another_cell_say_nothing_of_this_one() -> None:
    elsewhere = stairs(tread(33, 48, real=True), batch=1, threads=2)

    words = ledger_sentences(of_known_terms(), elsewhere)

    assert not any("cost as much" in one for one in words)
    assert said(of_known_terms(), "swept", elsewhere) == (
        "The costs were swept in another cell, so which counts cost alike here is not known: "
        "batch 1 against 8 and threads 2 against 4."
    )


def test_cells_that_differ_are_named() -> None:
    other = replace(baseline().cell, batch=16)

    assert said(make_ledger(baseline(), candidate(cell=other)), "cells") == (
        "The cells differ, so not all of it is the policy's doing: batch 8 against 16."
    )


def test_where_cells_differ_nothing_is_called_the_tokens_doing() -> None:
    other = replace(baseline().cell, batch=16)

    verdict, sums, *rest = ledger_sentences(
        make_ledger(baseline(work=work(BEFORE)), candidate(cell=other, work=work(FLOOR)))
    )

    assert verdict.endswith("], in another cell.")
    assert "] in the model's own phases at other tokens, +1.60 ms [" in sums
    assert "] in reducing tokens and +500 us [" in sums
    assert not any(word in one for one in (sums, *rest) for word in ("saved", "spends", "Propor"))


def test_weights_that_differ_are_named() -> None:
    sides = [
        replace(side, policy={**side.policy, "model": {**side.policy["model"], "weights": digest}})
        for side, digest in ((baseline(), "sha256:" + 8 * "a"), (candidate(), "sha256:" + 8 * "b"))
    ]

    assert said(make_ledger(sides[0], sides[1]), "weights") == (
        "The models have different weights: aaaaaaaa against bbbbbbbb."
    )


def test_profiles_of_two_sessions_say_where_drift_went() -> None:
    assert said(make_ledger(baseline(), candidate(session="two")), "in turn") == (
        "The two were not profiled in turn: how the machine drifted between them is in the terms "
        "and in the residual."
    )


def test_tracing_says_what_it_costs() -> None:
    sides = baseline(traced_ms=(31.2,)), candidate(traced_ms=(30.6,))

    assert said(make_ledger(*sides), "profiler") == (
        "Under the PyTorch profiler a pass takes 1.50x as long: operators and kernels say where "
        "time goes, not how much there is of it."
    )


def test_tracing_that_seems_to_cost_nothing_is_not_spoken_of() -> None:
    sides = baseline(traced_ms=(19.5,)), candidate(traced_ms=(15.3,))

    assert said(make_ledger(*sides), "profiler") == ""


def in_one_piece(ms: float) -> tuple[PhaseTime, ...]:
    return (PhaseTime(None, "other", passes(ms)),)


def test_passes_in_one_piece_are_said_to_have_no_terms() -> None:
    shorter = candidate(stamped=in_one_piece(13.0), floor=(), plain=Latency(passes(13.0, 0.01), 3))

    verdict, *rest = ledger_sentences(make_ledger(baseline(stamped=in_one_piece(26.0)), shorter))

    assert verdict.endswith(": faster.")
    assert rest == ["These passes were not split by block, so there are no terms."]


def test_equal_passes_in_one_piece_differ_in_nothing() -> None:
    again = baseline(name="again", plain=Latency(passes(26.0, 0.2), 3))
    sides = [replace(side, stamped=in_one_piece(26.0)) for side in (baseline(), again)]

    (sentence,) = ledger_sentences(make_ledger(sides[0], sides[1]))

    assert "; a pass would have had to change by more than " in sentence
