from dataclasses import replace

import pytest

from tests.report.ledgers import (
    AFTER,
    BEFORE,
    FLOOR,
    baseline,
    candidate,
    in_every_block,
    of_itself,
    of_known_terms,
    operator,
    work,
)
from tests.report.profiles import passes
from tokensearch.ledger import Ledger, ledger
from tokensearch.profiles import Operator, PhaseTime, Profile
from tokensearch.records import Backend, Latency
from tokensearch.report.ledger_words import Staircase, in_words


def said(found: Ledger, about: str, staircase: Staircase | None = None) -> str:
    """The one sentence that has a word in it; nothing if there is none."""
    sentences = [one for one in in_words(found, staircase) if about in one]
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
    verdict, sums, closing, *_ = in_words(of_known_terms())

    assert verdict == "halved takes 20.4 ms a pass, un-reduced 26.0 ms, 0.78x [0.78, 0.79]: faster."
    assert sums.startswith("Of it: -7.80 ms [")
    assert "] saved by fewer tokens, +1.60 ms [" in sums
    assert "] spent on reducing them and +500 us [" in sums
    assert closing.startswith(
        "The ledger closes to 1.8 % of the difference: its residual of +100 us"
    )


def test_the_other_way_round_time_is_added_by_more_tokens() -> None:
    sums = in_words(ledger(candidate(), baseline()))[1]

    assert sums.startswith("Of it: +7.80 ms [")
    assert "] added by more tokens, -1.60 ms [" in sums
    assert "] no longer spent on reducing them and -500 us [" in sums


def test_slower_is_said_as_plainly_as_faster() -> None:
    assert in_words(of_known_terms(plain_ms=30.0))[0].endswith("1.15x [1.15, 1.16]: slower.")


def test_without_proof_neither_is_called_faster() -> None:
    found = of_known_terms(plain_ms=26.1)

    assert in_words(found)[0].endswith(": neither is proven to be faster.")


def test_a_ledger_that_does_not_close_says_by_how_much() -> None:
    closing = said(of_known_terms(plain_ms=23.0), "close")

    assert closing.startswith("The ledger does not close: +2.70 ms [")
    assert closing.endswith("], 90.0 % of the difference, belong to no term.")


def test_an_empty_ledger_says_how_large_a_change_would_have_been_seen() -> None:
    (sentence,) = in_words(of_itself())

    assert sentence.startswith(
        "Nothing differs beyond the noise: again takes 26.0 ms a pass, un-reduced 26.0 ms, 1.00x ["
    )
    assert sentence.endswith(" us to be seen.")


@pytest.mark.parametrize(
    ("kernels_ms", "words"),
    [
        (
            (10.4, 8.16),
            "Launch-bound: the GPU works only 40.0 % of the baseline's pass and 40.0 % of the "
            "candidate's, so fewer tokens cannot help; try --backend cudagraph, or a larger batch.",
        ),
        (
            (24.7, 8.16),
            "The candidate has become launch-bound: the GPU works only 40.0 % of its pass (95.0 % "
            "of the baseline's), so cutting more tokens cannot help; try --backend cudagraph.",
        ),
        ((24.7, 19.38), ""),
    ],
)
def test_a_gpu_that_waits_for_its_host_is_called_launch_bound(
    kernels_ms: tuple[float, float], words: str
) -> None:
    sides = [
        replace(side, operators=(operator((0, "mlp"), "gemm", ms, kernel=True),))
        for side, ms in zip((baseline(), candidate()), kernels_ms, strict=True)
    ]

    assert said(ledger(sides[0], sides[1]), "GPU") == words


def test_a_replayed_graph_is_not_told_to_become_one() -> None:
    kernels: tuple[Operator, ...] = (operator((0, "mlp"), "gemm", 5.0, kernel=True),)
    backend: Backend = "cudagraph"
    cell = replace(baseline().cell, backend=backend)
    sides = [replace(side, operators=kernels, cell=cell) for side in (baseline(), candidate())]

    assert said(ledger(sides[0], sides[1]), "GPU") == ""


def test_what_is_saved_is_held_against_what_counted_work_promises() -> None:
    sides = baseline(work=work(BEFORE)), candidate(work=work(FLOOR))

    assert said(ledger(*sides), "counted") == (
        "If time fell as counted work does, 7.80 ms would be saved: 100.0 % of it was."
    )


def test_time_that_does_not_follow_the_tokens_is_named() -> None:
    none_left = dict.fromkeys(AFTER, 0.0)
    sides = baseline(work=work(BEFORE)), candidate(work=work(none_left))

    assert said(ledger(*sides), "counted") == (
        "If time fell as counted work does, 26.0 ms would be saved: 30.0 % of it was, so most of "
        "the model's time here does not follow its tokens; try a larger batch."
    )


def test_a_block_whose_cut_does_not_pay_is_named_with_both_figures() -> None:
    assert said(of_known_terms(), "spends") == (
        "Block 3 spends more than it saves there and later: 400 us against 300 us."
    )


def test_several_such_blocks_share_a_sentence() -> None:
    dear = changed(candidate(), "merging", 1, 9.0)

    assert said(ledger(baseline(), dear), "each spend") == (
        "Blocks 1 (9.60 ms against 7.50 ms) and 3 (400 us against 300 us) each spend more than "
        "they save there and later."
    )


def test_proportional_attention_names_its_price_and_what_attention_runs_instead() -> None:
    before = baseline(operators=tuple(in_every_block("attention", "flash", 2.0)))
    after = candidate(operators=tuple(in_every_block("attention", "math", 1.2)))

    sentence = said(ledger(before, after), "Proportional")

    assert sentence.startswith("Proportional attention costs 2.7 % of the baseline's pass (+700 us")
    assert sentence.endswith(
        ": the bias takes attention off its fast path (removed: flash; added: math)."
    )


def test_kernels_of_attention_that_torch_names_need_no_trace() -> None:
    sentence = said(ledger(baseline(sdpa="flash"), candidate(sdpa="math")), "Proportional")

    assert sentence.endswith("off its fast path (flash → math).")


def test_a_policy_without_proportional_attention_is_not_blamed_for_it() -> None:
    plain = candidate(policy={**candidate().policy, "proportional_attention": False})

    assert said(ledger(baseline(), plain), "Proportional") == ""


def test_counts_that_cost_as_much_as_larger_ones_are_named() -> None:
    stairs = {40: 1.0, 48: 1.005, 50: 1.2, 64: 1.2, 72: 1.5, 100: 2.0}

    sentences = [one for one in in_words(of_known_terms(), stairs) if "cost as much" in one]

    assert sentences == [
        "50 tokens cost as much as 64 here.",
        "40 tokens cost as much as 48 here.",
    ]


def test_cells_that_differ_are_named() -> None:
    other = replace(baseline().cell, batch=16)

    assert said(ledger(baseline(), candidate(cell=other)), "cells") == (
        "The cells differ, so not all of it is the policy's doing: batch 8 against 16."
    )


def test_weights_that_differ_are_named() -> None:
    sides = [
        replace(side, policy={**side.policy, "model": {**side.policy["model"], "weights": digest}})
        for side, digest in ((baseline(), "sha256:" + 8 * "a"), (candidate(), "sha256:" + 8 * "b"))
    ]

    assert said(ledger(sides[0], sides[1]), "weights") == (
        "The models have different weights: aaaaaaaa against bbbbbbbb."
    )


def test_profiles_of_two_sessions_say_where_drift_went() -> None:
    assert said(ledger(baseline(), candidate(session="two")), "in turn") == (
        "The two were not profiled in turn: how the machine drifted between them is in the terms "
        "and in the residual."
    )


def test_tracing_says_what_it_costs() -> None:
    sides = baseline(traced_ms=(31.2,)), candidate(traced_ms=(30.6,))

    assert said(ledger(*sides), "profiler") == (
        "Under the PyTorch profiler a pass takes 1.50x as long: operators and kernels say where "
        "time goes, not how much there is of it."
    )


def test_passes_in_one_piece_have_few_words_and_no_guesses() -> None:
    whole = PhaseTime(None, "other", passes(26.0))
    half = PhaseTime(None, "other", passes(13.0))
    sides = (
        baseline(stamped=(whole,)),
        candidate(stamped=(half,), floor=(), plain=Latency(passes(13.0, 0.01), 3)),
    )

    assert len(in_words(ledger(*sides))) == 3
