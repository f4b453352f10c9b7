"""`run --json`: what a search tells, as one JSON object a line on stdout, while it goes on."""

import json
import sys
from typing import Any

from tokensearch.cli.relay import Relay
from tokensearch.records.measurements import Trial
from tokensearch.records.run_result import RunDocument
from tokensearch.redaction import hide_secrets


class EventStream(Relay):
    """Prints what it hears as events, beside what the listener in front of it shows."""

    def stage(self, title: str, *, unit: str = "") -> None:
        """Begin a new stage."""
        super().stage(title, unit=unit)
        print_event("stage", title=title)

    def note(self, text: str) -> None:
        """Say what was found on the way."""
        super().note(text)
        print_event("note", text=hide_secrets(text))

    def caution(self, text: str) -> None:
        """Say what the user should know."""
        super().caution(text)
        print_event("caution", text=hide_secrets(text))

    def heard_of(self, trial: Trial) -> None:
        """Print the figures of a trial."""
        print_event(
            "trial",
            number=trial.number,
            origin=trial.origin,
            state=trial.state,
            ratio=trial.ratio,
            timed=trial.comparison is not None,
            right=trial.accuracy.share,
            divergence=trial.accuracy.divergence,
            images=trial.accuracy.images,
            seconds=trial.seconds,
            schedule_hash=trial.schedule_hash,
        )


def print_result(document: RunDocument) -> None:
    """Print the last event."""
    result = document.finished
    print_event(
        "result",
        outcome=result.outcome,
        exit_code=result.exit_code,
        run=document.to_json(),
    )


def print_event(kind: str, **fields: Any) -> None:
    """Print one event in a line, now: whoever reads acts while the search goes on."""
    sys.stdout.write(json.dumps({"event": kind, **fields}, allow_nan=False) + "\n")
    sys.stdout.flush()
