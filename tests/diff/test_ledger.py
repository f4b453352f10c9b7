"""The ledger of two profiles adds up, is empty of noise, and finds what was planted."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.diff.synthetic import HALF, HOST, SPENT, Parts
from tests.diff.synthetic import make_profile as noisy
from tokensearch.diff.ledger import Kind, Ledger, make_ledger
from tokensearch.diff.operators import operator_changes
from tokensearch.errors import MeasurementError
from tokensearch.records.measurements import Latency, to_json
from tokensearch.records.profile import Operator, Phase, PhaseTime
from tokensearch.records.profile_file import profile_from_json, profile_to_json
from tokensearch.report.diff.sentences import ledger_sentences


def term(found: Ledger, kind: Kind, block: int | None, phase: Phase) -> float:
    (one,) = (t for t in found.terms if (t.kind, t.block, t.phase) == (kind, block, phase))
    return one.ms.value


def kinds(found: Ledger) -> dict[Kind, float]:
    return {one.kind: one.ms.value for one in found.by_kind}


def test_the_kinds_add_up_to_the_difference_of_plain_passes() -> None:
    found = make_ledger(noisy(HOST, seed=1), noisy(HALF | SPENT, floor=HALF, seed=2, cut=True))

    assert sum(kinds(found).values()) == pytest.approx(found.difference.value)
    for groups in (found.terms, found.by_block, found.by_phase):
        assert sum(one.ms.value for one in groups) == pytest.approx(
            found.difference.value - found.residual.ms.value
        )


def test_what_was_planted_is_found_where_it_was_planted() -> None:
    slower = {scope: 1.3 * ms if scope[1] == "attention" else ms for scope, ms in HALF.items()}

    found = make_ledger(noisy(HOST, seed=1), noisy(slower | SPENT, floor=HALF, seed=2, cut=True))

    assert term(found, "saved", 7, "mlp") == pytest.approx(-1.5, rel=0.05)
    assert term(found, "spent", 5, "merging") == pytest.approx(0.7, rel=0.05)
    assert term(found, "shifted", 7, "attention") == pytest.approx(0.3, rel=0.3)
    assert kinds(found)["saved"] == pytest.approx(-15, rel=0.05)
    assert kinds(found)["spent"] == pytest.approx(1.8, rel=0.05)
    assert {one.phase for one in found.by_phase if one.kind == "spent" and one.ms.significant} == {
        "selecting",
        "merging",
        "bias",
    }


@pytest.mark.parametrize("memory", [0.0, 0.6])
@pytest.mark.parametrize("rounds", [12, 60])
def test_of_comparisons_of_a_model_with_itself_nineteen_in_twenty_are_empty(
    rounds: int, memory: float
) -> None:
    count = 40

    ledgers = [
        make_ledger(
            noisy(HOST, seed=2 * i, rounds=rounds, memory=memory, drift=i),
            noisy(HOST, seed=2 * i + 1, rounds=rounds, memory=memory, drift=i),
            seed=i,
        )
        for i in range(count)
    ]

    assert sum(ledger.empty for ledger in ledgers) >= 0.95 * count
    assert sum(ledger.verdict not in {"faster", "slower"} for ledger in ledgers) >= 0.95 * count


def test_phases_of_a_floor_that_are_too_slow_keep_a_ledger_from_closing() -> None:
    before, after = noisy(HOST, seed=1), noisy(HALF | SPENT, floor=HALF, seed=2, cut=True)
    slow = replace(
        after,
        floor=tuple(
            replace(part, passes_ms=tuple(1.3 * ms for ms in part.passes_ms))
            for part in after.floor
        ),
    )

    right, wrong = make_ledger(before, after), make_ledger(before, slow)

    assert right.closes
    assert not wrong.closes
    assert wrong.closing == pytest.approx(right.closing)  # shifted is the rest: it hides the fault
    assert wrong.floor_gap is not None
    assert wrong.floor_gap.value == pytest.approx(0.3 * sum(HALF.values()), rel=0.1)
    assert "Saved and shifted are not told apart" in " ".join(ledger_sentences(wrong))


def test_at_equal_counts_nothing_is_saved() -> None:
    slower = {scope: 1.3 * ms for scope, ms in HOST.items()}

    found = make_ledger(noisy(HOST, seed=1), noisy(slower, seed=2, session="another machine"))

    assert set(kinds(found)) == {"shifted", "residual"}
    assert found.verdict == "slower"


def test_blocks_before_the_first_cut_save_nothing() -> None:
    found = make_ledger(noisy(HOST, seed=1), noisy(HALF | SPENT, floor=HALF, seed=2, cut=True))

    assert {one.block for one in found.terms if one.kind == "saved"} == {*range(5, 12), None}
    assert {one.phase for one in found.terms if one.kind == "saved" and one.block is None} == {
        "head"
    }


def test_passes_that_cannot_be_split_have_no_terms() -> None:
    whole: Parts = {(None, "other"): 60.0}

    found = make_ledger(noisy(whole, seed=1), noisy({(None, "other"): 40.0}, seed=2, cut=True))

    assert not found.split
    assert found.terms == ()
    assert kinds(found) == {"residual": pytest.approx(-20, rel=0.1)}
    assert found.verdict == "faster"


def test_a_proven_difference_is_no_empty_ledger() -> None:
    slower = {scope: 1.05 * ms for scope, ms in HOST.items()}

    found = make_ledger(noisy(HOST, seed=1, rounds=12), noisy(slower, seed=2, rounds=12))

    assert found.verdict == "slower"
    assert not found.empty


def test_profiles_of_two_sessions_are_drawn_apart_and_so_less_certain() -> None:
    one, other = noisy(HOST, seed=1), noisy(HALF, seed=2, cut=True)
    apart = replace(other, session="two")

    paired, unpaired = make_ledger(one, other), make_ledger(one, apart)

    assert paired.paired
    assert not unpaired.paired
    assert (unpaired.difference.high - unpaired.difference.low) > 1.5 * (
        paired.difference.high - paired.difference.low
    )


def test_drift_shared_by_both_is_no_difference() -> None:
    assert make_ledger(noisy(HOST, seed=1, drift=5), noisy(HOST, seed=2, drift=5)).empty


def test_an_outlier_moves_no_term() -> None:
    calm = noisy(HOST, seed=2)
    stalled = replace(
        calm,
        stamped=tuple(
            replace(one, passes_ms=(one.passes_ms[0] + 500.0, *one.passes_ms[1:]))
            for one in calm.stamped
        ),
        plain=replace(calm.plain, passes_ms=(9000.0, *calm.plain.passes_ms[1:])),
    )
    first = noisy(HOST, seed=1)

    moved, still = make_ledger(first, stalled), make_ledger(first, calm)

    assert moved.difference.value == pytest.approx(still.difference.value, abs=0.3)
    assert term(moved, "shifted", 3, "mlp") == pytest.approx(
        term(still, "shifted", 3, "mlp"), abs=0.02
    )


def test_the_same_profiles_give_the_same_ledger() -> None:
    one, other = noisy(HOST, seed=1), noisy(HALF, seed=2, cut=True)

    assert make_ledger(one, other) == make_ledger(one, other)


def test_profiles_of_two_models_are_refused() -> None:
    with pytest.raises(MeasurementError) as caught:
        make_ledger(noisy(HOST, seed=1), replace(noisy(HOST, seed=2), model="other"))

    assert str(caught.value) == (
        "profiles of two models cannot be compared: 'profile 1' is of 'toy', 'profile 2' of 'other'"
    )


def operator(name: str, ms: float, *, seed: int = 0, passes: int = 5) -> Operator:
    random = np.random.default_rng(seed)
    times = tuple(ms * (1 + 0.01 * random.standard_normal(passes)))
    return Operator(0, "mlp", name, kernel=False, calls=2.0, passes_ms=times)


def test_operators_are_added_removed_or_changed_by_name() -> None:
    before = [operator("gelu", 2.0), operator("addmm", 9.0, seed=1), operator("copy_", 1.0, seed=2)]
    after = [operator("addmm", 5.0, seed=3), operator("sort", 0.5), operator("copy_", 1.0, seed=4)]

    found = {one.name: one.change for one in operator_changes(before, after)}

    assert found == {"addmm": "decreased", "gelu": "removed", "sort": "added", "copy_": "same"}
    assert next(iter(found)) == "addmm"


def test_a_single_pass_proves_nothing() -> None:
    (found,) = operator_changes([operator("gelu", 2.0, passes=1)], [operator("gelu", 9.0)])

    assert found.change == "untested"
    assert found.ms.value == pytest.approx(7, rel=0.1)


def test_a_profile_comes_back_from_its_file_as_it_went() -> None:
    profile = noisy(HALF | SPENT, floor=HALF, seed=1)

    back = profile_from_json(json.loads(json.dumps(profile_to_json(profile))))
    again = profile_from_json(json.loads(json.dumps(profile_to_json(back))))

    assert again == back  # the first time, times are rounded to the nanosecond
    assert replace(back, stamped=profile.stamped, floor=profile.floor) == profile
    assert back.pass_ms == pytest.approx(profile.pass_ms, rel=1e-6)


def phase(ms: float) -> dict[str, object]:
    return {"block": 0, "phase": "mlp", "passes_ms": [ms] * 60}


def written(passes: int, ms: float = 1.0) -> dict[str, object]:
    return asdict(Operator(0, "mlp", "gelu", kernel=False, calls=2.0, passes_ms=(ms,) * passes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"format": "tokensearch.policy"}, "format is 'tokensearch.policy'"),
        ({"version": 2}, "version 2"),
        ({"stamped": []}, "stamped has 0 items"),
        (
            {"stamped": [{"block": 0, "phase": "lunch", "passes_ms": [1.0]}]},
            r"stamped\[0\].phase is 'lunch'; it must be one of stem",
        ),
        ({"plain": None}, "plain is None; it must be an object"),
        ({"cell": {}}, "cell.device is missing"),
        ({"traced_ms": ["soon"]}, r"traced_ms\[0\] is 'soon'; it must be a number"),
        ({"traced_ms": [0.0]}, r"traced_ms\[0\] is 0.0; it must be a number from 1e-09"),
        ({"policy": {}}, "policy is no policy: format is None"),
        ({"patch_tokens": [196] * 11}, "11 counts; the policy's model has 12 blocks"),
        ({"plain": {"passes_ms": [], "warmup": 3}}, "plain.passes_ms has 0 items"),
        ({"plain": to_json(Latency((1.0,), warmup=3))}, "as many for every phase"),
        ({"plain": {"passes_ms": [0.0] * 60, "warmup": 3}}, r"plain.passes_ms\[0\] is 0.0"),
        ({"plain": {"passes_ms": [float("nan")] * 60, "warmup": 3}}, r"passes_ms\[0\] is nan"),
        ({"stamped": [phase(1e999)]}, r"stamped\[0\].passes_ms\[0\] is inf"),
        ({"stamped": [phase(1.0), phase(-0.5)]}, "holds -0.5 ms; a phase takes no time below 0"),
        ({"stamped": [phase(0.0)]}, "a pass whose phases take no time"),
        ({"stamped": [phase(1.0) | {"block": 12}]}, "block 12 is none of 12"),
        ({"stamped": [], "floor": [phase(1.0)]}, "stamped has 0 items"),
        ({"operators": [written(5), written(4)], "traced_ms": [1.0] * 5}, "as many as were traced"),
        ({"operators": [written(0)], "traced_ms": []}, "operators must have passes"),
        ({"operators": [written(1, ms=-1.0)], "traced_ms": [1.0]}, r"passes_ms\[0\] is -1.0"),
        ({"ceilings": {"gflop_s": 0.0, "gbyte_s": 1.0}}, "ceilings.gflop_s is 0.0"),
        (
            {"work": [{"block": 0, "phase": "mlp", "flop": -1.0, "bytes": 0.0}]},
            "flop is -1.0",
        ),
    ],
)
def test_a_spoilt_profile_is_refused_in_a_sentence(spoil: dict[str, object], said: str) -> None:
    with pytest.raises(MeasurementError, match=said):
        profile_from_json(profile_to_json(noisy(HOST, seed=1)) | spoil)


def test_phases_are_means_of_passes_that_were_neither_fast_nor_slow() -> None:
    profile = replace(
        noisy(HOST, seed=1),
        stamped=(
            PhaseTime(0, "mlp", (1.0, 2.0, 3.0, 90.0)),
            PhaseTime(1, "mlp", (1.0, 2.0, 5.0, 90.0)),
        ),
    )

    assert profile.middle == (1, 2)
    assert profile.phase_ms("mlp") == 2.5 + 3.5
    assert profile.phase_ms("mlp", range(1, 2)) == 3.5
    assert profile.pass_ms == 6.0
