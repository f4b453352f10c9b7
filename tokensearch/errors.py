"""Every error raised on purpose, as a tree.

TokensearchError
├── PolicyError        a policy contradicts itself, its file or its model    (also a ValueError)
├── NoPolicyError      no policy meets what was asked                        (also a LookupError)
├── TargetError        a latency target cannot be read                       (also a ValueError)
├── SpaceError         a search space cannot be read, or holds nothing       (also a ValueError)
├── ModelError         a model is unknown, or lacks what the runtime needs   (also a TypeError)
├── DataError          images cannot be read, or are too few                 (also a ValueError)
├── MeasurementError   a measurement failed, or two cannot be compared       (also a ValueError)
├── RunError           a run folder cannot be used                           (also an OSError)
├── TrainingError      a training cannot begin or go on                      (also a RuntimeError)
└── ExportError        a model cannot be exported, or not faithfully         (also a RuntimeError)

TokensearchWarning     something that the user should know                   (a UserWarning)

A message is one sentence in lower case: who, what value, what is allowed. The boundary that knows
the file adds it with `add_note`, which makes it part of the sentence.
"""


class TokensearchError(Exception):
    """Base of every error that tokensearch raises on purpose."""

    notes: tuple[str, ...] = ()

    def add_note(self, note: str, /) -> None:
        """Add what only a caller knows, such as the file: logs, which print `str`, have it too.

        >>> error = TokensearchError("version is 3; known is 1")
        >>> error.add_note("in policy.json")
        >>> str(error)
        'version is 3; known is 1 (in policy.json)'
        """
        self.notes = (*self.notes, note)

    @property
    def sentence(self) -> str:
        """What was wrong, without the notes."""
        return super().__str__()

    def __str__(self) -> str:
        """The sentence, and behind it the notes."""
        return f"{self.sentence} ({', '.join(self.notes)})" if self.notes else self.sentence


class PolicyError(TokensearchError, ValueError):
    """A policy contradicts itself, its file format or the model it is applied to."""


class NoPolicyError(TokensearchError, LookupError):
    """No policy of a set meets what was asked."""


class TargetError(TokensearchError, ValueError):
    """A latency target cannot be read."""


class SpaceError(TokensearchError, ValueError):
    """A search-space file cannot be read as one, or leaves nothing to search."""


class ModelError(TokensearchError, TypeError):
    """A model is unknown, cannot be loaded, or lacks what the runtime leans on."""


class DataError(TokensearchError, ValueError):
    """Images cannot be read, or are too few for three splits."""


class MeasurementError(TokensearchError, ValueError):
    """A measurement failed, or two measurements cannot honestly be compared."""


class RunError(TokensearchError, OSError):
    """A run folder cannot be written, or belongs to another run."""


class TrainingError(TokensearchError, RuntimeError):
    """A training cannot begin, or a loss is no longer a number."""


class ExportError(TokensearchError, RuntimeError):
    """A model cannot be exported, or the file does not compute what the model computes."""


class TokensearchWarning(UserWarning):
    """Something that the user should know, and that stops nothing."""


def first_line(error: BaseException) -> str:
    r"""Return the first line of what an error says, else its name; without a full stop at its end.

    Of SystemExit and the like, whose text says nothing, the name with its arguments.

    >>> first_line(ValueError("no such file.\nSee the log."))
    'no such file'
    """
    if not isinstance(error, Exception):
        return repr(error)
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
