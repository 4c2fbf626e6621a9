"""Why the query service gives no answer, as an HTTP status and in words."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

LEAVE = {"Connection": "close"}
"""What was not read of a body is not waited for."""
ASK_AGAIN = {"Retry-After": "1"}


class RequestRefusedError(Exception):
    """Ends a request; ``reason`` is one word for programs, the message says more to people."""

    status: ClassVar[int]
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UnknownClientError(RequestRefusedError):
    """The token is missing or wrong; nothing is read of the body."""

    status = 401
    headers = MappingProxyType(LEAVE | {"WWW-Authenticate": "Bearer"})


class UnfitQuestionError(RequestRefusedError):
    """The same text or photo will be refused again."""

    status = 422


class BodyTooLargeError(RequestRefusedError):
    """More bytes than the limit, which are not read."""

    status = 413
    headers = MappingProxyType(LEAVE)


class NotNowError(RequestRefusedError):
    """The service is full, has no model yet, or its model cannot compute: asking again may help."""

    status = 503
    headers = MappingProxyType(LEAVE | ASK_AGAIN)


class TooLateError(RequestRefusedError):
    """The deadline passed before the answer came."""

    status = 504
    headers = MappingProxyType(LEAVE)
