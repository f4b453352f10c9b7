from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _another_precision() -> Iterator[None]:
    """Have accelerate forget the precision of the training before, which it shares by default."""
    yield
    try:
        from accelerate.state import AcceleratorState
    except ImportError:
        return
    AcceleratorState._reset_state(reset_partial_state=True)
