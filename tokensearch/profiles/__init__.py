"""What a profile holds: where the time of a pass goes, by block, phase, operator and kernel.

Three instruments, from the truest to the finest, none of which is in another's figures:

* `plain`     whole passes by the clock, nothing attached that the user would not attach;
* `stamped`   passes that note the time at every border of a range, so that the parts add up to the
              pass; measured on two CPU cores, one takes 0.5 % longer than a plain pass of DeiT-S at
              batch 8, and up to 4 % longer than one of DeiT-T at batch 1;
* `operators` passes under the PyTorch profiler, which costs microseconds per operator.

Times are milliseconds.
"""

from tokensearch.profiles.file import (
    FORMAT,
    MAX_PROFILE_BYTES,
    VERSION,
    check_format,
    profile_from_json,
    profile_to_json,
)
from tokensearch.profiles.places import (
    OUTSIDE,
    PASS_RANGE,
    PHASES,
    RANGE,
    REDUCING,
    Phase,
    Place,
    place_of,
    range_name,
)
from tokensearch.profiles.record import Ceilings, Operator, PhaseTime, Profile, Work

__all__ = [
    "FORMAT",
    "MAX_PROFILE_BYTES",
    "OUTSIDE",
    "PASS_RANGE",
    "PHASES",
    "RANGE",
    "REDUCING",
    "VERSION",
    "Ceilings",
    "Operator",
    "Phase",
    "PhaseTime",
    "Place",
    "Profile",
    "Work",
    "check_format",
    "place_of",
    "profile_from_json",
    "profile_to_json",
    "range_name",
]
