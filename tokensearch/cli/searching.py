"""The options of `run` that say how it searches, and for how long."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import BadParameter, Option

if TYPE_CHECKING:
    from tokensearch.evaluate.store import AnswerStore
    from tokensearch.policy import Policy
    from tokensearch.search import Limits

# On the bundled model and two CPU cores: 40 trials where predictions are poor, 100 where they are
# good, and about seven minutes in all.
DEFAULT_MINUTES = 1.75


@dataclass(frozen=True, slots=True)
class Searching:
    """Where, how and for how long to search: an option per field."""

    space: Annotated[str, Option("--space", help="search space: a TOML file or a name")] = "default"
    sampler: Annotated[
        Literal["local", "tpe", "tpe-multivariate", "gp", "nsga2", "random"],
        Option("--sampler", help="who proposes: our local search, or one of Optuna's"),
    ] = "local"
    objective: Annotated[
        Literal["kl", "ce", "top1", "agreement"],
        Option(
            "--objective",
            help="what to make best: divergence from the un-reduced model, cross-entropy with the "
            "labels, right answers, or answers that stay the same",
        ),
    ] = "kl"
    front: Annotated[
        Path | None,
        Option(
            "--from",
            metavar="FILE",
            help="front.json of another run, whose schedules are tried first",
        ),
    ] = None
    trials: Annotated[
        int | None,
        Option("--trials", min=1, help="policies to try, if that is to end the search"),
    ] = None
    minutes: Annotated[
        float | None,
        Option(
            "--minutes",
            min=0.01,
            max=1e5,
            help=f"of searching at most, {DEFAULT_MINUTES} if neither this nor --trials is given; "
            "confirming and quoting what was found come on top",
        ),
    ] = None
    cache_gb: Annotated[
        float,
        Option("--cache-gb", min=0.0, max=1e4, help="memory for activations that policies share"),
    ] = 1.0
    remember: Annotated[
        bool,
        Option(
            "--remember/--no-remember",
            help="keep answers for later runs, and use those of earlier ones",
        ),
    ] = True

    fresh: Annotated[
        bool,
        Option(
            "--fresh",
            help="move what an earlier run left in the run folder to earlier-1, earlier-2 ... "
            "within, and begin anew",
        ),
    ] = False

    def limits(self) -> "Limits":
        """When the search ends; BadParameter for minutes or memory that are no number."""
        from tokensearch.search import Limits

        for name, number in (("--minutes", self.minutes), ("--cache-gb", self.cache_gb)):
            if number is not None and not isfinite(number):
                raise BadParameter(f"{name} is {number}; it must be a number")
        if self.minutes is None and self.trials is None:
            return Limits(None, DEFAULT_MINUTES * 60)
        return Limits(self.trials, None if self.minutes is None else self.minutes * 60)

    def neighbours(self) -> "tuple[Policy, ...]":
        """Return the schedules that won elsewhere; PolicyError if the file holds none."""
        from tokensearch.policy import load_set

        return () if self.front is None else load_set(self.front).policies

    def store(self) -> "AnswerStore":
        """Return what remembers answers."""
        from tokensearch.evaluate.store import AnswerStore, usual_store

        return AnswerStore(usual_store() if self.remember else None)
