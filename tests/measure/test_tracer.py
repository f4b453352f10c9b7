"""The profiler's operators and kernels are found in the ranges that they ran in."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile as torch_profile
from torch.profiler import record_function

from tokensearch.errors import MeasurementError
from tokensearch.measure.tracer import Trace, _summed, peak_bytes, trace
from tokensearch.profiles import range_name

CPU = torch.device("cpu")


def traced(run: object, **options: object) -> Trace:
    with torch.inference_mode():
        return trace(run, name="toy", device=CPU, passes=3, **options)


def run_of(layer: nn.Module, x: Tensor) -> object:
    def run() -> None:
        x.sum()
        with record_function(range_name(0, "attention")):
            x.exp()
            with record_function(range_name(0, "qkv")):
                layer(x)

    return run


def test_an_operator_belongs_to_the_innermost_range() -> None:
    found = traced(run_of(nn.Linear(64, 64), torch.ones(8, 64)))

    places = {(one.name, one.block, one.phase): one.calls for one in found.operators}
    assert places["aten::exp", 0, "attention"] == 1
    assert places["aten::addmm", 0, "qkv"] == 1
    assert places["aten::sum", None, "other"] == 1
    assert not any(one.kernel for one in found.operators)


def test_own_times_agree_with_the_profilers_own_table() -> None:
    layer, x = nn.Linear(512, 512), torch.ones(256, 512)

    found = traced(run_of(layer, x))

    with torch.inference_mode(), torch_profile(acc_events=True) as reference:
        for _ in range(3):
            run_of(layer, x)()
    names = {event.key for event in reference.key_averages() if event.key.startswith("aten::")}
    assert names == {one.name for one in found.operators}
    assert all(len(one.passes_ms) == 3 for one in found.operators)
    assert sum(one.ms for one in found.operators) <= sum(found.passes_ms) / 3


def test_ranges_of_other_people_are_operators_of_theirs() -> None:
    def run() -> None:
        with record_function("tokensearch.block.0.lunch"):
            torch.ones(8, 8).sum()

    assert {one.block for one in traced(run).operators} == {None}


def test_a_trace_of_no_pass_is_refused() -> None:
    with pytest.raises(MeasurementError) as caught:
        trace(lambda: None, name="none", device=CPU, passes=0)

    assert str(caught.value) == "a trace needs at least 1 pass, got 0"


def test_the_file_has_a_folder_of_its_own_in_the_name_of_what_was_traced(tmp_path: Path) -> None:
    traced(run_of(nn.Linear(8, 8), torch.ones(2, 8)), folder=tmp_path)

    (written,) = tmp_path.rglob("*.*")
    assert written.parent.name == "toy"
    assert written.name.startswith("toy.")
    assert written.name.endswith(".pt.trace.json.gz")


def test_peak_memory_is_what_lives_at_the_same_time() -> None:
    def run() -> None:
        one = torch.empty(1000)  # 4000 bytes
        two = torch.empty(2000)
        del one
        three = torch.empty(500)
        del two, three

    assert peak_bytes(run, CPU) == pytest.approx(12_000, abs=128)  # rounded up to its alignment


def event(
    name: str, start_us: int, end_us: int, *inside: SimpleNamespace, **kernels_us: float
) -> SimpleNamespace:
    """What the profiler reports of one span on the host, and of the kernels launched in it."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start_us, end=end_us),
        cpu_children=list(inside),
        kernels=[SimpleNamespace(name=name, duration=us) for name, us in kernels_us.items()],
    )


def test_a_kernel_belongs_to_the_range_that_launched_it() -> None:
    mlp, shadow = range_name(0, "mlp"), range_name(0, "scoring")
    linear = event("linear", 11, 19, event("addmm", 12, 18, gemm=4000.0, gelu=500.0))
    sort = event("sort", 31, 39, radix=2000.0)
    whole = event(
        "tokensearch.pass",
        0,
        100,
        event("stem", 1, 5, gemm=1000.0),
        event(mlp, 10, 20, linear),
        event(shadow, 30, 40, sort, **{shadow: 9000.0}),  # the range's own shadow is no kernel
    )

    found = dict(_summed(whole))

    kernels = {(place, name): ms for (place, name, kernel), (_, ms) in found.items() if kernel}
    assert kernels == {
        ((None, "other"), "gemm"): 1.0,
        ((0, "mlp"), "gemm"): 4.0,
        ((0, "mlp"), "gelu"): 0.5,
        ((0, "scoring"), "radix"): 2.0,
    }
    assert found[(0, "mlp"), "linear", False] == (1, pytest.approx(0.002))
    assert found[(0, "mlp"), "addmm", False] == (1, pytest.approx(0.006))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_kernels_of_a_gpu_are_found_and_take_time() -> None:
    device = torch.device("cuda")
    layer, x = nn.Linear(4096, 4096).to(device), torch.ones(8192, 4096, device=device)

    with torch.inference_mode():
        found = trace(run_of(layer, x), name="gpu", device=device, passes=3)

    assert any(one.kernel and one.phase == "qkv" and one.ms > 0 for one in found.operators)
