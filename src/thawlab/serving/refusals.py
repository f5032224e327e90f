"""Why a request is refused: a status of HTTP, and one line for people."""

from typing import final


@final
class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP, 4xx or 5xx.
        message: what is wrong, and what to do.
        retry_after: seconds after which to try again, where that helps.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def busy(what: str, retry_after: int = 1) -> RefusedError:
    """Return the refusal of a server that has too much to do."""
    return RefusedError(503, f"{what}; try again in {retry_after} s", retry_after)
