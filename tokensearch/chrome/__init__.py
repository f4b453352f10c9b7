"""Other people's traces: operators and kernels of a file that torch.profiler wrote."""

from tokensearch.chrome.trace import ChromeTrace, read_trace

__all__ = ["ChromeTrace", "read_trace"]
