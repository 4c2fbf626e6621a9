"""Call the query service without loading a model; service and client share these records."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from jobs.errors import PermanentError, RetryableError


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer: one word for programs, and more for people."""

    reason: str
    detail: str


@dataclass(frozen=True)
class EmbeddedQuery:
    """A unit vector of a text or a photo, by the encoder of the live space."""

    model_version_id: int
    space_id: int
    vector: tuple[float, ...]


@dataclass(frozen=True)
class RankedCategory:
    """A category, and the classifier's confidence in it from 0 to 1."""

    category: str
    confidence: float


@dataclass(frozen=True)
class Classification:
    """The tag that the live classifier gives a photo; ``top_3`` begins with the same category."""

    model_version_id: int
    category: str
    confidence: float
    top_3: tuple[RankedCategory, ...]


TIMEOUT_SECONDS = 15.0
"""Longer than the service's own deadline, whose answer says more."""

_EMBEDDED = TypeAdapter(EmbeddedQuery)
_REFUSAL = TypeAdapter(Refusal)
_CLASSIFIED = TypeAdapter(Classification)
Answer = TypeVar("Answer")


class QueryRefused(ValueError):  # noqa: N818 - an answer about the question, no fault of the service
    """The text or photo will never be answered; ``reason`` is one word, as in ``catalog.item_failures``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class QueryClient:
    """A session with the service; safe to use from several threads.

    Each call raises QueryRefused when the question is at fault, RetryableError when the service is away, full or has
    no model yet, and PermanentError when something else answers at its address.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        # A proxy named in the environment has no business between two services of one deployment.
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=timeout_seconds,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def embed_text(self, text: str) -> EmbeddedQuery:
        """The vector of a text, by the encoder of the live space."""
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise QueryRefused("unfit_text", "the query holds half of a surrogate pair, which is in no text") from None
        return self._ask("/embed-text", _EMBEDDED, json={"text": body.decode()})

    def embed_image(self, content: bytes) -> EmbeddedQuery:
        """The vector of a photo, by the encoder of the live space."""
        return self._ask("/embed-image", _EMBEDDED, content=content)

    def classify(self, content: bytes) -> Classification:
        """The tag of a photo, by the live classifier."""
        return self._ask("/classify", _CLASSIFIED, content=content)

    def _ask(self, path: str, form: TypeAdapter[Answer], **body: Any) -> Answer:
        try:
            response = self._http.post(path, **body)
        except httpx.TimeoutException:
            raise RetryableError(f"the query service at {self._url} did not answer in time: ask again") from None
        except httpx.TransportError:
            raise RetryableError(
                f"the query service does not answer at {self._url}: start it with `python -m jobs serve`"
            ) from None
        try:
            if response.status_code == httpx.codes.OK:
                return form.validate_json(response.content)
            refusal = _REFUSAL.validate_json(response.content)
        except ValidationError:
            raise PermanentError(
                f"what answers at {self._url} is no query service (status {response.status_code}): check "
                "CATALOG_QUERY_SERVICE_URL"
            ) from None
        if response.status_code in {httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.REQUEST_ENTITY_TOO_LARGE}:
            raise QueryRefused(refusal.reason, refusal.detail)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise PermanentError(
                f"the query service at {self._url} rejects the token: set the same CATALOG_QUERY_TOKEN for both"
            )
        raise RetryableError(f"the query service at {self._url} cannot answer now: {refusal.detail}")
