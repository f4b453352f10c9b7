"""What to do about a doubtful profile, in the options of the verbs that take profiles."""

from tokensearch.records import Caution

# Where these verbs have an option for it. Neither warm-up nor traced passes can be asked for.
_HERE = {
    Caution.SLOW_START: "repeat, or allow more --seconds, so that it counts for less",
    Caution.WIDE_SPREAD: "stop other work on the machine, or allow more --seconds",
    Caution.FEW_PASSES: "allow more --seconds",
    Caution.COARSE_CLOCK: "use a larger --batch-size",
    Caution.PROFILER_DISAGREES: "trust the clock, or repeat with more --seconds",
}


def said(doubt: Caution) -> str:
    """Return what is doubtful, and what the user can do about it here."""
    what, general = doubt.value.split(": ")
    return f"{what}: {_HERE.get(doubt, general)}"
