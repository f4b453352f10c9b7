"""What every test shares."""

import os
import signal
import tempfile
from contextlib import suppress

import pytest
import torch

# Answers are kept between runs: those of tests nowhere that a user looks.
os.environ["TOKENSEARCH_CACHE"] = tempfile.mkdtemp(prefix="tokensearch-tests-")
# The tensors of tests are small: a second thread gains nothing, and spins when another process
# wants its core. Commands that tests start as processes of their own are not touched.
torch.set_num_threads(1)
if not torch.cuda.is_available():  # fused kernels are interpreted; read when Triton is imported
    os.environ["TRITON_INTERPRET"] = "1"
with suppress(ImportError):  # the tests of GPUs run where it is not installed
    from hypothesis import settings

    settings.register_profile("tokensearch", deadline=None)  # a busy machine is no reason to fail
    settings.load_profile("tokensearch")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")


# Shells start background jobs with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
