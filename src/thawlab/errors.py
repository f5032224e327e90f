"""Errors for users: one line that says what is wrong, where, and what to do."""

import re
from collections.abc import Iterable

# From this share of equal letters in equal order on, a name may be meant.
_LIKE = 0.55
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ThawlabError(Exception):
    """A failure that the user can act on; its message is one line. The command line exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(plain(str(message)))


class UsageError(ThawlabError):
    """A wrong command, recipe, key, value or name: nothing was started. The command line exits with 2."""

    exit_code = 2


class DivergedError(ThawlabError):
    """Training diverged: the loss or the weights contain NaN or infinity."""


class BusyError(ThawlabError):
    """Another process is at work on the same run."""


class OtherVersionError(ThawlabError):
    """A file was written by another version of thawlab: it is not damaged, and must not be written over."""


class Interrupted(KeyboardInterrupt):
    """Training stopped on a signal, after saving its state; not an `Exception`, so that no error handler swallows it.

    The message says what was saved and how to resume; the exit code is 128 plus the signal's number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the choice spelled most like `name`, or an empty string.

    Two letters in the wrong order count as one mistake (optimal string alignment).
    """
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import extractOne

    lowered = {choice.lower(): choice for choice in choices}
    found = extractOne(name.lower(), list(lowered), scorer=OSA.normalized_similarity, score_cutoff=_LIKE)
    return f" (did you mean '{lowered[found[0]]}'?)" if found else ""


def listed(choices: Iterable[str], limit: int = 12) -> str:
    """Return the choices as a readable list, cut after `limit` of them."""
    known = list(choices)
    shown = ", ".join(known[:limit])
    return shown if len(known) <= limit else f"{shown}, … ({len(known)} in all)"


def plain(text: str) -> str:
    """Return a text with its control characters written out: names in others' files may hold some, and a terminal obeys them."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none: our own messages are one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
