"""A profile says where the time of a pass goes, and leaves a trace that TensorBoard opens."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from tokensearch.errors import MeasurementError
from tokensearch.measure import CudaEvents, WallClock, describe_cell, profile
from tokensearch.measure.profile import _DEVICE, _explain
from tokensearch.records import Phase, Profile, range_name

CPU = torch.device("cpu")
CELL = describe_cell(CPU, torch.float32, 4, 32)


class TwoBlocks(nn.Module):
    """Stem, two blocks with the runtime's ranges around their halves, head."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(width, width), nn.Linear(width, width)
        self.halves = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        phases: tuple[Phase, ...] = ("attention", "mlp")
        for number, half in enumerate(self.halves):
            with record_function(range_name(number // 2, phases[number % 2])):
                x = half(x)
        return self.head(x)


def profiled(run: object, **options: object) -> Profile:
    with torch.inference_mode():
        return profile(run, name="two blocks", cell=CELL, clock=WallClock(), passes=3, **options)


@pytest.fixture(scope="module")
def two_blocks() -> Profile:
    model, x = TwoBlocks(), torch.randn(4, 64)
    return profiled(lambda: model(x))


def test_every_phase_of_every_block_is_found_once(two_blocks: Profile) -> None:
    assert [(item.block, item.phase) for item in two_blocks.phases] == [
        (0, "attention"),
        (0, "mlp"),
        (1, "attention"),
        (1, "mlp"),
        (None, "other"),
    ]


def test_the_parts_add_up_to_the_pass(two_blocks: Profile) -> None:
    explained_ms = sum(item.ms for item in two_blocks.phases)

    assert all(item.ms > 0 for item in two_blocks.phases)
    assert 0 < explained_ms <= two_blocks.profiled_ms
    assert two_blocks.unexplained_ms >= 0


def test_the_clock_is_asked_apart_from_the_profiler(two_blocks: Profile) -> None:
    assert two_blocks.passes == 3
    assert two_blocks.clock_ms > 0


def test_a_pass_without_ranges_is_unexplained_as_a_whole() -> None:
    plain = profiled(lambda: torch.ones(8, 8) @ torch.ones(8, 8))

    assert plain.phases == ()
    assert plain.unexplained_ms == plain.profiled_ms > 0


def test_ranges_of_one_name_are_summed_within_a_pass() -> None:
    def run() -> None:
        for _ in range(3):
            with record_function(range_name(0, "scoring")):
                torch.ones(8, 8).sum()

    repeated = profiled(run)

    assert [(item.block, item.phase) for item in repeated.phases] == [
        (0, "scoring"),
        (None, "other"),
    ]


def test_ranges_of_other_people_change_nothing() -> None:
    def run() -> None:
        with record_function("tokensearch.block.0.lunch"), record_function("theirs"):
            torch.ones(8, 8).sum()

    assert profiled(run).phases == ()


def test_a_profile_of_no_pass_is_refused() -> None:
    with pytest.raises(MeasurementError) as caught:
        profile(lambda: None, name="none", cell=CELL, clock=WallClock(), passes=0)

    assert str(caught.value) == "a profile needs at least 1 pass, got 0"


def test_the_trace_folder_opens_in_the_tensorboard_plugin(tmp_path: Path) -> None:
    from torch_tb_profiler.consts import WORKER_PATTERN
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    model, x = TwoBlocks(), torch.randn(4, 64)

    profiled(lambda: model(x), trace_dir=tmp_path)

    (trace,) = tmp_path.iterdir()
    worker, span = WORKER_PATTERN.match(trace.name).groups()
    # What the plugin's RunLoader does with each file, but in this process, so that errors are seen.
    data = RunProfileData.parse(worker, span[1:], str(trace), str(tmp_path))
    shown = RunGenerator(worker, span[1:], data).generate_run_profile()
    assert worker == "two_blocks"
    assert {"Overview", "Operator", "Trace"} <= {view.display_name for view in shown.views}
    assert len(data.steps_names) == 3


def event(
    name: str, start_us: int, end_us: int, *inside: SimpleNamespace, **kernels_us: float
) -> SimpleNamespace:
    """What the profiler reports of one span on the host, and of the kernels launched in it."""
    return SimpleNamespace(
        name=name,
        device_type=SimpleNamespace(name="CPU"),
        time_range=SimpleNamespace(start=start_us, end=end_us),
        cpu_children=list(inside),
        kernels=[SimpleNamespace(name=name, duration=us) for name, us in kernels_us.items()],
    )


def test_device_time_belongs_to_the_range_that_launched_it() -> None:
    mlp, shadow = range_name(0, "mlp"), range_name(0, "scoring")
    whole = event(
        "pass",
        0,
        100,
        event("stem", 1, 5, gemm=1000.0),
        event(
            mlp, 10, 20, event("linear", 11, 19, event("addmm", 12, 18, gemm=4000.0, gelu=500.0))
        ),
        event("between", 21, 29, copy=250.0),
        event(shadow, 30, 40, event("sort", 31, 39, radix=2000.0), **{shadow: 9000.0}),
        event("head", 50, 60, gemm=125.0),
    )

    found = _explain(whole, _DEVICE)

    assert found.parts_ms == {(0, "mlp"): 4.5, (0, "scoring"): 2.0, (None, "other"): 1.125}
    assert found.whole_ms == 7.875  # the copy between two ranges is left unexplained


def test_device_time_outside_is_found_within_a_span_around_everything() -> None:
    mlp = event(range_name(0, "mlp"), 10, 20, event("linear", 11, 19, gemm=4000.0))
    wrapper = event("forward", 1, 99, event("stem", 2, 5, gemm=1000.0), mlp)

    found = _explain(event("pass", 0, 100, wrapper), _DEVICE)

    assert found.parts_ms == {(0, "mlp"): 4.0, (None, "other"): 1.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_device_time_of_the_ranges_agrees_with_events() -> None:
    device = torch.device("cuda")
    model, x = TwoBlocks(4096).to(device), torch.randn(8192, 4096, device=device)
    cell = describe_cell(device, torch.float32, 8192, 32)

    with torch.inference_mode():
        found = profile(lambda: model(x), name="gpu", cell=cell, clock=CudaEvents(device))

    assert len(found.phases) == 5
    assert found.profiled_ms == pytest.approx(found.clock_ms, rel=0.1)  # long kernels leave no gaps
    assert found.unexplained_ms == pytest.approx(0, abs=0.01 * found.profiled_ms)
