"""The query service over HTTP: raw bodies in, JSON out."""

from fastapi import FastAPI, Response
from pydantic import BaseModel, ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from jobs.query_service.access import LOOPBACK_NAMES, is_on_loopback
from jobs.query_service.answers import EmbeddedQuery
from jobs.query_service.question_path import AnswerBody, QuestionPath, write_json, write_refusal
from jobs.query_service.refusals import NotNowError, UnfitQuestionError
from jobs.query_service.request_body import BodyReader
from jobs.query_service.service import QueryService
from jobs.settings import Settings

TEXT_BODY_BYTES = 16_384
"""Of JSON, in which each byte of a text may take six."""


class TextQuestion(BaseModel):
    """The body of ``/embed-text``."""

    text: str


def create_app(service: QueryService, settings: Settings) -> FastAPI:
    """The paths of the service; no pages of documentation, which would fetch scripts from elsewhere."""
    app = FastAPI(title="Catalog tagger: query service", openapi_url=None)
    if is_on_loopback(settings):
        # A page in somebody's browser may ask under a name of its own that leads here.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, settings.serve_host])
    bodies = BodyReader(settings.max_object_bytes)

    async def embed_text(body: bytes) -> EmbeddedQuery:
        return await service.embed_text(_read_text(body))

    questions: tuple[tuple[str, AnswerBody, int], ...] = (
        ("/embed-text", embed_text, TEXT_BODY_BYTES),
        ("/embed-image", service.embed_image, settings.max_object_bytes),
        ("/classify", service.classify, settings.max_object_bytes),
    )
    for path, answer, body_bytes in questions:
        question_path = QuestionPath(path, answer, bodies, body_bytes, service.metrics, settings)
        app.add_api_route(path, question_path.handle, methods=["POST"], response_model=None)

    @app.get("/health", response_model=None)
    async def health() -> Response:
        found = service.describe_health()
        trouble = "; ".join(found.trouble)
        if not found.is_ready:
            return write_refusal(NotNowError("not_ready", trouble))
        versions = {"classifier": found.classifier, "encoder": found.encoder}
        return write_json(200, versions | ({"trouble": trouble} if trouble else {}))

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=service.metrics.media_type)

    return app


def _read_text(body: bytes) -> str:
    try:
        return TextQuestion.model_validate_json(body).text
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise UnfitQuestionError("unfit_text", f'the body must be {{"text": "..."}} in JSON: {fault}') from None
