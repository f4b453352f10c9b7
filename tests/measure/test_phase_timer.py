"""A stamped pass is split among its ranges without remainder."""

import pytest
import torch
from torch import Tensor, nn

from tests.measure.gpu import FakeGpu, installed
from tokensearch.measure import PhaseTimer, columns

CPU = torch.device("cpu")


class Ticking(PhaseTimer):
    """Its clock goes forward by what the pass says."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.seconds = 0.0
        self.now = lambda: self.seconds

    def spend(self, ms: float) -> None:
        self.seconds += ms / 1000


def split(run: object) -> dict[tuple[int | None, str], float]:
    stamps = Ticking()
    found = stamps.split(lambda: run(stamps))
    return {place: pytest.approx(ms) for place, ms in found.items() if ms}


def test_time_belongs_to_the_innermost_range() -> None:
    def run(stamps: Ticking) -> None:
        with stamps.around(0, "attention"):
            stamps.spend(1)
            with stamps.around(0, "qkv"):
                stamps.spend(2)
            stamps.spend(4)

    assert split(run) == {(0, "attention"): 5, (0, "qkv"): 2}


def test_before_the_first_range_is_the_stem_and_after_the_last_the_head() -> None:
    def run(stamps: Ticking) -> None:
        stamps.spend(1)
        with stamps.around(0, "mlp"):
            stamps.spend(2)
        stamps.spend(4)
        with stamps.around(1, "mlp"):
            stamps.spend(8)
        stamps.spend(16)

    assert split(run) == {
        (None, "stem"): 1,
        (0, "mlp"): 2,
        (None, "other"): 4,
        (1, "mlp"): 8,
        (None, "head"): 16,
    }


def test_a_pass_without_ranges_belongs_to_none() -> None:
    assert split(lambda stamps: stamps.spend(3)) == {(None, "other"): 3}


def test_a_range_entered_twice_is_summed() -> None:
    def run(stamps: Ticking) -> None:
        for _ in range(3):
            with stamps.around(0, "scoring"):
                stamps.spend(2)

    assert split(run) == {(0, "scoring"): 6}


def test_the_next_pass_begins_anew() -> None:
    stamps = Ticking()

    def run() -> None:
        with stamps.around(0, "mlp"):
            stamps.spend(2)

    stamps.split(run)

    assert stamps.split(run) == {
        (None, "stem"): 0,
        (0, "mlp"): pytest.approx(2),
        (None, "head"): 0,
    }


def test_the_real_clock_splits_a_pass_into_parts_that_are_all_there() -> None:
    stamps, x = PhaseTimer(CPU), torch.ones(256, 256)

    def run() -> None:
        x @ x
        with stamps.around(0, "mlp"):
            x @ x

    found = stamps.split(run)

    assert set(found) == {(None, "stem"), (0, "mlp"), (None, "head")}
    assert all(ms > 0 for ms in found.values())


def test_parts_become_columns_and_what_a_pass_lacks_took_no_time() -> None:
    passes = [{(0, "mlp"): 1.0}, {(0, "mlp"): 2.0, (0, "norm"): 3.0}]

    assert columns(passes) == {(0, "mlp"): (1.0, 2.0), (0, "norm"): (0.0, 3.0)}


class Block(nn.Module):
    """One range, which a policy would put into the model."""

    def __init__(self, stamps: PhaseTimer) -> None:
        super().__init__()
        self.stamps = stamps

    def forward(self, x: Tensor) -> Tensor:
        with self.stamps.around(0, "mlp"):
            return x @ x


def test_every_replay_of_a_graph_stamps_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(launch_ms=1.0, border_ms=(0.0, 0.0), node_ms=0.0, kernel_ms=lambda out: 2.0)
    stamps, x = PhaseTimer(torch.device("cuda")), torch.ones(4, 4)
    with installed(gpu, monkeypatch):
        replay = stamps.captured(Block(stamps), x)
        gpu.host = gpu.device = 1000.0
        first = stamps.split(replay)
        second = stamps.split(replay)

    assert first == second == {(None, "stem"): 1.0, (0, "mlp"): 2.0, (None, "head"): 0.0}
    assert len(stamps.borders) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_replays_are_split_between_events_of_the_graph() -> None:
    device = torch.device("cuda")
    stamps, x = PhaseTimer(device), torch.randn(4096, 4096, device=device) / 64

    replay = stamps.captured(Block(stamps), x)
    first, second = stamps.split(replay), stamps.split(replay)

    assert set(first) == set(second) == {(None, "stem"), (0, "mlp"), (None, "head")}
    assert first != second  # stamped anew
    assert first[0, "mlp"] > 0
    assert second[0, "mlp"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_parts_are_times_between_events() -> None:
    device = torch.device("cuda")
    stamps, x = PhaseTimer(device), torch.ones(4096, 4096, device=device)

    def run() -> None:
        with stamps.around(0, "qkv"):
            x @ x
        with stamps.around(0, "mlp"):
            for _ in range(4):
                x @ x

    stamps.split(run)
    found = stamps.split(run)

    assert found[0, "mlp"] > 2 * found[0, "qkv"] > 0
