"""What `tokensearch doctor` looks at, one function per question."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tokensearch
from tokensearch.errors import first_line
from tokensearch.report import text
from tokensearch.stats.interval import Interval

if TYPE_CHECKING:
    import torch

    from tokensearch.records.launch_bound import LaunchCost

State = Literal["ok", "caution", "problem"]

PACKAGES = ("torch", "torchvision", "timm", "optuna")
NVIDIA_DRIVER = Path("/dev/nvidiactl")  # is there when the kernel has NVIDIA's driver
# Launches in one probe: a stream queues about a thousand before its host has to wait
# (forums.developer.nvidia.com/t/68937).
LAUNCHES = 200
# What is probed: a small model that people deploy, at batches of which an H100 is bound by some.
LAUNCH_MODEL, LAUNCH_BATCHES = "deit_s", (1, 8, 64, 256)
FINE_NOISE = 0.02  # a machine that cannot tell 2 % apart cannot tell neighbouring schedules apart


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The answer to one question, and what to do when it is a bad one."""

    name: str
    state: State
    finding: str
    remedy: str = ""


def examine_machine() -> tuple[HealthCheck, ...]:
    """Ask everything; what needs torch is left out where torch cannot be imported."""
    packages = (python(), *(package(name) for name in PACKAGES))
    if not _torch_works():
        broken = HealthCheck("torch", "problem", "torch cannot be imported", "install torch again")
        return (*packages, broken)
    questions: list[Callable[[], HealthCheck]] = [vision, device, threads, attention, demo]
    if _device().type == "cuda":
        questions.append(launches)
    return (*packages, *(question() for question in (*questions, timing)))


def python() -> HealthCheck:
    """Which Python this is."""
    major, minor, micro = sys.version_info[:3]
    return HealthCheck("python", "ok", f"{major}.{minor}.{micro}")


def package(name: str) -> HealthCheck:
    """Whether a package is installed, and which version."""
    try:
        return HealthCheck(name, "ok", version(name))
    except PackageNotFoundError:
        return HealthCheck(name, "problem", "not installed", f"pip install {name}")


def vision() -> HealthCheck:
    """Whether torchvision's compiled operators were built for this torch."""
    import torch

    try:
        _load_nms()(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        remedy = "install the torchvision of torch's release: pip install -U torch torchvision"
        return HealthCheck(
            "operators", "problem", f"torchvision does not fit torch: {first_line(error)}", remedy
        )
    return HealthCheck("operators", "ok", "torchvision fits torch")


def _load_nms() -> Callable[..., object]:
    """Return an operator that torchvision compiled.

    Its library is loaded alone where it is found: its import loads torch's compiler, two seconds.
    """
    import torch

    spec = find_spec("torchvision")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent
    for library in () if folder is None else folder.glob("_C*"):
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]  # torch's gap
    if not hasattr(torch.ops.torchvision, "nms"):
        from torchvision.ops import nms

        return nms  # type: ignore[no-any-return]  # of a package without types
    operator: Callable[..., object] = torch.ops.torchvision.nms
    return operator


def device() -> HealthCheck:
    """What latencies would be measured on."""
    import torch

    from tokensearch.measure import this_machine

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return HealthCheck("device", "ok", text.listed(names))
    name = this_machine(torch.device("cpu")).name
    if NVIDIA_DRIVER.exists():
        remedy = "install a torch whose CUDA version the driver supports"
        return HealthCheck("device", "caution", f"{name}; torch cannot use the NVIDIA GPU", remedy)
    return HealthCheck("device", "ok", f"{name}; no NVIDIA GPU")


def threads() -> HealthCheck:
    """Whether torch runs more threads than this process may use cores."""
    import torch

    from tokensearch.measure import this_machine

    cores, running = this_machine(torch.device("cpu")).cores, torch.get_num_threads()
    finding = f"{text.count(running, 'thread')} on {text.count(cores, 'core')}"
    if running > cores:
        return HealthCheck("threads", "caution", finding, f"set OMP_NUM_THREADS={cores}")
    return HealthCheck("threads", "ok", finding)


def attention() -> HealthCheck:
    """Whether fused attention runs on the device."""
    import torch

    device = _device()
    try:
        x = torch.ones(1, 1, 4, 8, device=device)
        finite = torch.nn.functional.scaled_dot_product_attention(x, x, x).isfinite().all()
    except RuntimeError as error:
        remedy = "install the torch that was built for this device"
        return HealthCheck(
            "attention", "problem", f"SDPA fails on {device}: {first_line(error)}", remedy
        )
    if not bool(finite):
        return HealthCheck(
            "attention", "problem", f"SDPA on {device} is not finite", "install torch again"
        )
    return HealthCheck("attention", "ok", f"SDPA runs on {device}")


def demo() -> HealthCheck:
    """Whether the bundled model has its weights."""
    if Path(tokensearch.__file__).with_name("demo").joinpath("demo.safetensors").exists():
        return HealthCheck("demo", "ok", "the bundled weights are there")
    remedy = "install tokensearch again; other models work without them"
    return HealthCheck("demo", "caution", "the bundled weights are missing", remedy)


def launches() -> HealthCheck:
    """What a launch costs the host, and up to which batch an eager pass waits for its launches."""
    import torch

    from tokensearch.measure import clock_for, measure_launching

    device = _device()
    number = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(LAUNCHES):
            number.add_(1)

    one_us = measure_launching(many, clock_for(device)).host_ms / LAUNCHES * 1000
    waits, free = bound_up_to(partial(_eager, device))
    finding = f"a launch takes the host {one_us:.1f} us; {batches_words(waits, free)}"
    remedy = "" if waits is None else "there --backend cudagraph, which auto takes, is faster"
    return HealthCheck("launches", "ok", finding, remedy)


def bound_up_to(probe: "Callable[[int], LaunchCost]") -> tuple[int | None, int | None]:
    """Return the largest batch that is launch-bound, and the smallest tried that is not."""
    waits: int | None = None
    for batch in LAUNCH_BATCHES:
        if not probe(batch).bound:
            return waits, batch
        waits = batch
    return waits, None


def batches_words(waits: int | None, free: int | None) -> str:
    """Say at which batches an eager pass waits for its launches."""
    what = f"an eager pass of {LAUNCH_MODEL} in half precision"
    if waits is None:
        return f"{what} does not wait for launches even at batch {free}"
    no_longer = "" if free is None else f", and no longer at {free}"
    return f"{what} is launch-bound at batch {waits}{no_longer}"


def _eager(device: "torch.device", batch: int) -> "LaunchCost":
    """Probe an eager pass with random weights."""
    import torch

    from tokensearch.measure import clock_for, measure_launching
    from tokensearch.measure.resolve_cell import resolve_dtype
    from tokensearch.models import input_pixels, resolve_model, untrained

    kind = getattr(torch, resolve_dtype("auto", device))
    model = untrained(resolve_model(LAUNCH_MODEL)).to(device, kind)
    rows, columns = input_pixels(model)
    images = torch.zeros(batch, 3, rows, columns, device=device, dtype=kind)
    with torch.inference_mode():
        return measure_launching(partial(model, images), clock_for(device))


def timing() -> HealthCheck:
    """The smallest difference of time to be told here, by timing one thing against itself."""
    from tokensearch.measure import measure_noise

    noise = measure_noise(_device())
    reach = Interval(noise.ratio, noise.low, noise.high).reach
    finding = f"differences above {text.percent(reach)} can be told from noise"
    advice = "; ".join(dict.fromkeys(noise.cautions))
    if noise.verdict in {"faster", "slower"}:
        finding = f"one piece of work timed twice differed: {text.ratio(noise.ratio)}"
    elif reach <= FINE_NOISE and not advice:
        return HealthCheck("noise", "ok", finding)
    return HealthCheck("noise", "caution", finding, advice or "stop other work on the machine")


def _torch_works() -> bool:
    try:
        import torch  # noqa: F401 - whether it can be had is the question
    except (ImportError, OSError):
        return False
    return True


def _device() -> "torch.device":
    from tokensearch.measure.resolve_cell import resolve_device

    return resolve_device("auto")
