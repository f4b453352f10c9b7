"""Profiles whose borders cost time: what is taken off, and what a ledger then leaves over."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.measure.gpu import FakeGpu, installed
from tokensearch.diff.ledger import make_ledger
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.policy import ModelSpec, Policy, Pool, Prune
from tokensearch.profiling import ProfilePlan, profile
from tokensearch.records.profile import PhaseTime, Profile
from tokensearch.records.profile_file import profile_from_json, profile_to_json
from tokensearch.runtime import describe


def tiny() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, num_heads=3, depth=6).eval()


SPEC: ModelSpec = describe(tiny())
POLICIES = {
    "none": Policy(SPEC),
    "reduced": Policy(SPEC, (Prune(1, 12), Pool(3, 8)), proportional_attention=True),
}
PLAN = ProfilePlan(
    TimingBudget(warmup=1, max_rounds=12, seconds=60.0), traced_passes=0, roofline=False
)
CELL = replace(describe_cell(torch.device("cpu"), torch.float32, 2, 32), device="cuda")


def profiled(gpu: FakeGpu, backend: str, patch: pytest.MonkeyPatch) -> tuple[Profile, ...]:
    images = torch.randn(2, 3, 32, 32)
    zeros = torch.zeros
    patch.setattr(torch, "zeros", lambda *shape, device=None, **kw: zeros(*shape, **kw))
    with installed(gpu, patch):
        return profile(
            tiny(), POLICIES, images=images, cell=replace(CELL, backend=backend), plan=PLAN
        )


def raw(one: Profile) -> Profile:
    """As it would be if nothing had been taken off."""

    def back(parts: tuple[PhaseTime, ...]) -> tuple[PhaseTime, ...]:
        return tuple(
            replace(
                part, passes_ms=tuple(ms + part.borders * one.border_ms for ms in part.passes_ms)
            )
            for part in parts
        )

    return replace(one, stamped=back(one.stamped), floor=back(one.floor))


@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_a_launch_bound_ledger_closes_once_the_price_of_stamps_is_off(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(border_ms=(0.002, 0.004), node_ms=0.002)

    baseline, reduced = profiled(gpu, backend, monkeypatch)

    assert make_ledger(baseline, reduced).closing < 0.02
    assert make_ledger(raw(baseline), raw(reduced)).closing > 0.2
    assert sum(one.borders for one in reduced.stamped) > 80


def test_where_the_gpu_is_behind_nothing_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = profiled(FakeGpu(kernel_ms=lambda out: 0.05), "eager", monkeypatch)

    assert max(one.border_ms for one in pair) < 0.0001
    assert make_ledger(*pair).closing < 0.02


def test_what_a_stamped_pass_takes_beyond_the_price_is_left_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = import_module("tokensearch.profiling.profile")
    monkeypatch.setattr(ours, "phase_border_ms", lambda *_, **__: 0.001)

    baseline, reduced = profiled(FakeGpu(border_ms=(0.003, 0.003)), "eager", monkeypatch)

    assert baseline.border_ms == reduced.border_ms == 0.001
    assert not make_ledger(baseline, reduced).closes


def test_a_graph_is_split_by_block_floor_included(monkeypatch: pytest.MonkeyPatch) -> None:
    _, replayed = profiled(FakeGpu(), "cudagraph", monkeypatch)
    _, eager = profiled(FakeGpu(), "eager", monkeypatch)

    for of in ("stamped", "floor"):
        places = [
            {(part.block, part.phase) for part in getattr(one, of)} for one in (replayed, eager)
        ]
        assert places[0] == places[1]


def test_no_phase_takes_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in profiled(FakeGpu(border_ms=(0.0, 0.006)), "eager", monkeypatch):
        assert min(part.borders for part in one.stamped) > 0
        assert min(one.phase_ms(part.phase, (part.block,)) for part in one.stamped) > -1e-12


def test_a_profile_and_its_price_come_back_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = profiled(FakeGpu(border_ms=(0.0, 0.006)), "eager", monkeypatch)

    back = profile_from_json(profile_to_json(one))

    assert back.border_ms == one.border_ms
    assert [part.borders for part in back.stamped] == [part.borders for part in one.stamped]


def test_an_older_file_had_nothing_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    written = profile_to_json(profiled(FakeGpu(), "eager", monkeypatch)[0])
    del written["border_ms"]
    for part in (*written["stamped"], *written["floor"]):
        del part["borders"]
        part["passes_ms"] = [abs(ms) for ms in part["passes_ms"]]

    assert profile_from_json(written).border_ms == 0.0
