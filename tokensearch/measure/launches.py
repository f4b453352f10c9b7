"""How long a host takes to launch a pass: what a GPU waits for where kernels are short."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from tokensearch.measure.clock import Clock, Run
from tokensearch.records.launch_bound import LaunchCost

# The first passes choose kernels; a median of seven is moved by no three that were disturbed.
WARMUP, PASSES = 3, 7


def measure_launching(
    run: Run, clock: Clock, *, now: Callable[[], float] = perf_counter
) -> LaunchCost:
    """Time passes, each on an idle device: until the host has enqueued it, and until it is done.

    Of passes of fewer than about a thousand launches, which is what a stream queues before the host
    has to wait for it.

    clock  of the device: it returns once the device is idle again
    now    of the host, in seconds
    """
    host_ms: list[float] = []

    def enqueue() -> None:
        start_s = now()
        run()
        host_ms.append((now() - start_s) * 1000)

    pass_ms = [clock.time_ms(enqueue) for _ in range(WARMUP + PASSES)]
    return LaunchCost(median(host_ms[WARMUP:]), median(pass_ms[WARMUP:]))
