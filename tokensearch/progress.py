"""What long work tells whoever watches it."""

from collections.abc import Callable
from typing import Protocol


class ProgressListener(Protocol):
    """Watches a search or a sweep: a terminal or a log. A sweep only calls `progress`."""

    def stage(self, title: str, *, unit: str = "") -> None:
        """Begin a new stage of the run, whose progress is counted in `unit`."""
        ...

    def note(self, text: str) -> None:
        """Report something that was found on the way."""
        ...

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        """Report that `done` of `total` pieces of this stage are finished."""
        ...

    def caution(self, text: str) -> None:
        """Report something that the user should know."""
        ...


def tell_images(watcher: ProgressListener) -> Callable[[int, int], None]:
    """Return a callback for images done and images in all."""
    return lambda done, total: watcher.progress(done=done, total=total, seconds_left=None, text="")
