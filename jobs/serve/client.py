"""Call the query service without loading a model. Service and client share these records."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from jobs.errors import ConfigurationError, RetryableError


@dataclass(frozen=True)
class Refusal:
    """The body of an error response: one word for programs, and a sentence for people."""

    reason: str
    detail: str


@dataclass(frozen=True)
class EmbeddedQuery:
    """The unit vector of a text or an image in the live space."""

    model_version_id: int
    space_id: int
    vector: tuple[float, ...]


@dataclass(frozen=True)
class RankedCategory:
    """A category with the classifier's confidence, from 0 to 1."""

    category: str
    confidence: float


@dataclass(frozen=True)
class Classification:
    """The prediction of the live classifier for an image. ``top_3`` starts with the predicted category."""

    model_version_id: int
    category: str
    confidence: float
    top_3: tuple[RankedCategory, ...]


@dataclass(frozen=True)
class ServedVersions:
    """The versions that the service has loaded, and what is wrong with newer ones. A catalog may have no classifier."""

    classifier: int | None
    encoder: int | None
    trouble: str = ""


TIMEOUT_SECONDS = 15.0
"""Longer than the service's own deadline, because the service's error message is more specific."""

_EMBEDDED = TypeAdapter(EmbeddedQuery)
_REFUSAL = TypeAdapter(Refusal)
_HEALTH = TypeAdapter(ServedVersions)
_CLASSIFIED = TypeAdapter(Classification)
Result = TypeVar("Result")


class QueryRefusedError(ValueError):
    """The text or image is invalid, so do not retry. ``reason`` is one word, as in ``catalog.item_failures``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class QueryClient:
    """A session with the service. Thread-safe.

    Each call raises QueryRefusedError for an invalid query, RetryableError if the service is down, full or has no model
    yet, and PermanentError if the server at its address is not the query service.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        # Ignore proxy variables of the environment: client and service belong to one deployment.
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
        """Close the connections."""
        self._http.close()

    def embed_text(self, text: str) -> EmbeddedQuery:
        """Return the vector of a text in the live space."""
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise QueryRefusedError("unfit_text", "the text contains an unpaired surrogate") from None
        return self._post("/embed-text", _EMBEDDED, json={"text": body.decode()})

    def embed_image(self, content: bytes) -> EmbeddedQuery:
        """Return the vector of an image in the live space."""
        return self._post("/embed-image", _EMBEDDED, content=content)

    def classify(self, content: bytes) -> Classification:
        """Classify an image with the live classifier."""
        return self._post("/classify", _CLASSIFIED, content=content)

    def read_health(self) -> ServedVersions:
        """Return what the service has loaded. It needs no token."""
        return self._send("GET", "/health", _HEALTH)

    def _post(self, path: str, form: TypeAdapter[Result], **body: Any) -> Result:
        return self._send("POST", path, form, **body)

    def _send(self, method: str, path: str, form: TypeAdapter[Result], **body: Any) -> Result:
        try:
            response = self._http.request(method, path, **body)
        except httpx.TimeoutException:
            raise RetryableError(f"the query service at {self._url} did not respond in time: try again") from None
        except httpx.TransportError:
            raise RetryableError(
                f"cannot reach the query service at {self._url}: start it with `catalog serve`"
            ) from None
        try:
            if response.status_code == httpx.codes.OK:
                return form.validate_json(response.content)
            refusal = _REFUSAL.validate_json(response.content)
        except ValidationError:
            raise ConfigurationError(
                f"the server at {self._url} is not the query service (status {response.status_code}): check "
                "CATALOG_QUERY_SERVICE_URL"
            ) from None
        if response.status_code in {httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.REQUEST_ENTITY_TOO_LARGE}:
            raise QueryRefusedError(refusal.reason, refusal.detail)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigurationError(
                f"the query service at {self._url} rejects the token: set the same CATALOG_QUERY_TOKEN for both"
            )
        raise RetryableError(f"the query service at {self._url} is not available now: {refusal.detail}")
