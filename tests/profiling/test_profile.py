"""A profile splits real passes of a model under a policy, and says what they did."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.search import tiny
from tokensearch.errors import MeasurementError
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.policy import ModelSpec, Policy, Pool, Prune
from tokensearch.profiling import ProfilePlan, copy_sharing_weights, profile
from tokensearch.records.profile import REDUCING, Profile
from tokensearch.runtime import describe

SPEC: ModelSpec = describe(tiny.model())
REDUCED = Policy(SPEC, (Prune(1, 12), Pool(3, 8)), proportional_attention=True)
CELL = describe_cell(torch.device("cpu"), torch.float32, 2, 32)
PLAN = ProfilePlan(
    TimingBudget(warmup=1, min_rounds=4, max_rounds=4, seconds=9.0), traced_passes=2, roofline=False
)


def profiles(
    policies: dict[str, Policy], plan: ProfilePlan = PLAN, **options: object
) -> list[Profile]:
    images = torch.randn(2, 3, 32, 32)
    return list(profile(tiny.model(), policies, images=images, cell=CELL, plan=plan, **options))


@pytest.fixture(scope="module")
def pair() -> list[Profile]:
    return profiles({"none": Policy(SPEC), "reduced": REDUCED})


def places(one: Profile) -> set[tuple[int | None, str]]:
    return {(item.block, item.phase) for item in one.stamped}


def test_every_block_has_the_phases_of_a_transformer(pair: list[Profile]) -> None:
    everywhere = {"norm", "qkv", "attention", "projection", "mlp"}

    for block in range(6):
        assert {phase for where, phase in places(pair[0]) if where == block} == everywhere
    assert {phase for where, phase in places(pair[0]) if where is None} == {"stem", "head", "other"}


def test_only_blocks_that_are_opened_have_code_of_the_runtime(pair: list[Profile]) -> None:
    assert {where for where, phase in places(pair[1]) if phase == "other"} == {None, 1, 3, 4, 5}


def test_only_what_reduces_spends_on_reducing(pair: list[Profile]) -> None:
    spent = {(block, phase) for block, phase in places(pair[1]) if phase in REDUCING}

    assert {(1, "scoring"), (1, "selecting"), (1, "gathering")} <= spent
    assert {(3, "selecting"), (3, "merging"), (4, "bias"), (5, "bias")} <= spent
    assert not any(ms for ms in (pair[0].phase_ms(p) for p in REDUCING if p != "bias"))


def test_the_floor_has_the_counts_and_none_of_the_price(pair: list[Profile]) -> None:
    assert pair[0].floor == ()
    reducing = {item.phase for item in pair[1].floor if item.phase in REDUCING}
    assert reducing <= {"bias", "gathering"}  # nothing is added; cut rows are made whole
    assert len({len(item.passes_ms) for item in (*pair[1].floor, *pair[1].stamped)}) == 1


def test_profiles_of_one_call_are_of_one_session(pair: list[Profile]) -> None:
    assert pair[0].session == pair[1].session
    assert len(pair[0].plain.passes_ms) == len(pair[1].plain.passes_ms) == 4
    assert profiles({"none": Policy(SPEC)})[0].session != pair[0].session


def test_operators_are_traced_in_their_blocks(pair: list[Profile]) -> None:
    sorts = {item.block for item in pair[1].operators if "sort" in item.name}

    assert sorts == {1, 3}
    assert all(len(item.passes_ms) == 2 for item in pair[1].operators)
    assert len(pair[1].traced_ms) == 2
    assert pair[1].peak_bytes is not None
    assert pair[1].peak_bytes > 0


def test_work_falls_with_the_tokens() -> None:
    plan = ProfilePlan(PLAN.budget, traced_passes=0, roofline=True)

    full, reduced = profiles({"none": Policy(SPEC), "reduced": REDUCED}, plan)

    def mlp(one: Profile, block: int) -> float:
        return sum(w.flop for w in one.work if (w.block, w.phase) == (block, "mlp"))

    # 2 images, 1 + N tokens, width 24 to 96 and back, 2 operations for each multiplication.
    assert mlp(full, 3) == 2 * 2 * 17 * 2 * 24 * 96
    assert mlp(reduced, 3) == 2 * 2 * 9 * 2 * 24 * 96
    assert full.ceilings == reduced.ceilings
    assert full.ceilings is not None


def test_a_compiled_pass_is_a_whole() -> None:
    from dataclasses import replace

    import tokensearch.profiling.passes as ours

    compiled = replace(CELL, backend="compile")
    images = torch.randn(2, 3, 32, 32)
    seen: list[str] = []
    backed = ours.runtime.with_backend

    def eagerly(model: nn.Module, backend: str, example: torch.Tensor, **_: object) -> object:
        seen.append(backend)
        return backed(model, "eager", example)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours.runtime, "with_backend", eagerly)
        plan = ProfilePlan(PLAN.budget, traced_passes=0)
        (found,) = profile(
            tiny.model(), {"reduced": REDUCED}, images=images, cell=compiled, plan=plan
        )

    assert "compile" in seen
    assert places(found) == {(None, "other")}
    assert found.floor == ()


def test_traces_are_left_where_they_are_wanted(tmp_path: Path) -> None:
    profiles({"none": Policy(SPEC)}, folder=tmp_path)

    assert [path.parent.name for path in tmp_path.rglob("*.pt.trace.json.gz")] == ["none"]


def test_twins_share_weights_and_nothing_else() -> None:
    model = tiny.model()
    other = copy_sharing_weights(model)

    assert other is not model
    assert other.blocks[0] is not model.blocks[0]
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_the_model_is_left_as_it_was() -> None:
    model = tiny.model()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        before = model(images)
        profile(model, {"reduced": REDUCED}, images=images, cell=CELL, plan=PLAN)
        after = model(images)

    assert torch.equal(before, after)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_cell_whose_caches_are_emptied_is_refused() -> None:
    emptied = replace(CELL, cache="flushed")

    with pytest.raises(MeasurementError, match="the cell has cache 'flushed', which only a"):
        profile(
            tiny.model(),
            {"none": Policy(SPEC)},
            images=torch.zeros(2, 3, 32, 32),
            cell=emptied,
            plan=PLAN,
        )
