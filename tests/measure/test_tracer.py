"""The profiler's operators and kernels are found in the ranges that they ran in."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile as torch_profile
from torch.profiler import record_function

from tokensearch.errors import MeasurementError
from tokensearch.measure import tracer
from tokensearch.measure.tracer import Trace, _summed, peak_bytes, trace_passes
from tokensearch.records.profile import range_name
from tokensearch.runtime import with_backend

CPU = torch.device("cpu")


def traced(run: object, **options: object) -> Trace:
    with torch.inference_mode():
        return trace_passes(run, name="toy", device=CPU, passes=3, **options)


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
        trace_passes(lambda: None, name="none", device=CPU, passes=0)

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

    found = _summed(whole, [])

    kernels = {(place, name): ms for (place, name, kernel), (_, ms) in found.items() if kernel}
    assert kernels == {
        ((None, "other"), "gemm"): 1.0,
        ((0, "mlp"), "gemm"): 4.0,
        ((0, "mlp"), "gelu"): 0.5,
        ((0, "scoring"), "radix"): 2.0,
    }
    assert found[(0, "mlp"), "linear", False] == (1, pytest.approx(0.002))
    assert found[(0, "mlp"), "addmm", False] == (1, pytest.approx(0.006))


def on_device(name: str, start_us: float, end_us: float, *, shadow: bool = False) -> object:
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start_us, end=end_us),
        device_type=SimpleNamespace(name="CUDA"),
        is_user_annotation=shadow,
    )


def on_host(name: str, start_us: float, end_us: float, **kernels_us: float) -> SimpleNamespace:
    one = event(name, start_us, end_us, **kernels_us)
    one.device_type = SimpleNamespace(name="CPU")
    return one


def seen_in(events: list[object], monkeypatch: pytest.MonkeyPatch, passes: int = 2) -> Trace:
    monkeypatch.setattr(tracer, "_events", lambda *_, **__: events)
    return trace_passes(lambda: None, name="replay", device=torch.device("cuda"), passes=passes)


def test_kernels_of_a_replay_are_found_though_no_operator_holds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy in, 0.2 ms of kernels that nothing launched but the graph, a copy out."""
    events: list[object] = []
    for start in (0, 1000):
        whole = on_host("tokensearch.pass", start, start + 50)
        whole.cpu_children = [on_host("aten::copy_", start + 1, start + 5, memcpy=2.0)]
        events += [
            whole,
            on_device("tokensearch.pass", start + 10, start + 260, shadow=True),
            on_device("memcpy", start + 10, start + 12),  # the one that is linked
            on_device("gemm", start + 20, start + 120),
            on_device("gemm", start + 120, start + 200),
            on_device("softmax", start + 200, start + 220),  # long after the host went on
        ]

    found = seen_in(events, monkeypatch)

    kernels = {one.name: (one.block, one.phase, one.calls) for one in found.operators if one.kernel}
    assert kernels == {
        "memcpy": (None, "other", 1),
        "gemm": (None, "other", 2),
        "softmax": (None, "other", 1),
    }
    busy_ms = sum(one.ms for one in found.operators if one.kernel)
    assert busy_ms == pytest.approx(0.202)


def test_a_kernel_that_is_linked_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = range_name(0, "mlp")
    whole = on_host("tokensearch.pass", 0, 50)
    inside = on_host(mlp, 1, 40)
    inside.cpu_children = [on_host("aten::mm", 2, 30, gemm=10.0)]
    whole.cpu_children = [inside]
    shadow = on_device(mlp, 20, 30, shadow=True)

    found = seen_in([whole, shadow, on_device("gemm", 20, 30)], monkeypatch, passes=1)

    kernels = [one for one in found.operators if one.kernel]
    assert [(one.name, one.block, one.phase, one.ms) for one in kernels] == [
        ("gemm", 0, "mlp", 0.01)
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_kernels_of_a_replay_on_a_gpu_are_found() -> None:
    device = torch.device("cuda")
    layer, x = nn.Linear(4096, 4096).to(device), torch.ones(8192, 4096, device=device)
    replay = with_backend(layer, "cudagraph", x)

    found = trace_passes(lambda: replay(x), name="gpu", device=device, passes=3)

    busy_ms = sum(one.ms for one in found.operators if one.kernel)
    assert busy_ms > 0.1  # 275 GFLOP: at 2 PFLOP/s still 0.13 ms


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_kernels_of_a_gpu_are_found_and_take_time() -> None:
    device = torch.device("cuda")
    layer, x = nn.Linear(4096, 4096).to(device), torch.ones(8192, 4096, device=device)

    with torch.inference_mode():
        found = trace_passes(run_of(layer, x), name="gpu", device=device, passes=3)

    assert any(one.kernel and one.phase == "qkv" and one.ms > 0 for one in found.operators)
