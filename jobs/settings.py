"""Every setting, read once from the environment, typed, and passed to whoever needs it.

Sources, strongest first: environment variables, ``.env``, and, only when none of the locations is set
there, the file that the local stack wrote (so that nothing of a laptop leaks into production).
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.errors import PermanentError
from jobs.storage.uri import S3Uri

PROJECT_ROOT = Path(__file__).resolve().parent.parent
LOCAL_STACK_FOLDER = PROJECT_ROOT / ".local"
LOCAL_STACK_ENVIRONMENT = "stack.env"
LOCATIONS = ("CATALOG_DATABASE_URL", "CATALOG_SOURCE_URI", "CATALOG_ARTIFACTS_URI", "CATALOG_S3_ENDPOINT_URL")


def _require_postgres(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must start with postgresql://")
    return url.replace("postgres://", "postgresql://", 1)


def _require_s3(uri: str) -> str:
    S3Uri.parse(uri)
    return uri


def _require_product_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if "product_id" not in groups:
        raise ValueError("must be a regular expression with a group (?P<product_id>...)")
    return pattern


def _read_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError("must be a JSON list of texts") from None


Location = Annotated[str, AfterValidator(_require_s3)]
# Without NoDecode, pydantic reads the JSON itself and does not say which variable is wrong.
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_list)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareUpToHalf = Annotated[float, Field(gt=0, le=0.5)]


class Settings(BaseSettings):
    """The settings of every job; ``.env.example`` documents each with its default."""

    model_config = SettingsConfigDict(env_prefix="CATALOG_", frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: Annotated[str, AfterValidator(_require_postgres)]
    source_uri: Location
    artifacts_uri: Location
    s3_endpoint_url: str | None = None

    image_suffixes: Texts = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    exclude_patterns: Texts = ()
    product_id_pattern: Annotated[str, AfterValidator(_require_product_group)] = (
        r"(?P<product_id>[^/]+?)(?:[_-]\d{1,2})?\.[^./]+$"
    )
    products_file: str = "products.csv"
    vanished_share_limit: Share = 0.2
    failed_share_limit: Share = 0.01
    drift_limit: Annotated[float, Field(gt=0)] = 0.25
    drift_min_images: Annotated[int, Field(ge=1)] = 200

    shard_size: Annotated[int, Field(ge=1)] = 8192
    chunk_size: Annotated[int, Field(ge=1)] = 256
    batch_size: Annotated[int, Field(ge=1)] | None = None
    read_threads: Annotated[int, Field(ge=1)] = 8
    decode_processes: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    max_object_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    min_side_pixels: Annotated[int, Field(ge=1)] = 8
    max_attempts: Annotated[int, Field(ge=1)] = 5
    device: str = "auto"
    jpeg_decoder: Literal["cpu", "gpu"] = "cpu"
    compile_torch: bool = False
    engine: Literal["auto", "torch", "openvino"] = "auto"
    precision: str = "auto"

    serve_host: str = "127.0.0.1"
    serve_port: Annotated[int, Field(ge=1, le=65535)] = 8091
    serve_queue_length: Annotated[int, Field(ge=1)] = 64
    serve_deadline_seconds: Annotated[float, Field(gt=0)] = 10.0
    query_service_url: str = "http://127.0.0.1:8091"

    model_cache: Path = LOCAL_STACK_FOLDER / "models"

    test_share: ShareUpToHalf = 0.1
    validation_share: ShareUpToHalf = 0.1
    classifier_base: str = "microsoft/resnet-18"
    encoder_base: str = "openai/clip-vit-base-patch32"

    @model_validator(mode="after")
    def _chunks_fit_in_shards(self) -> Self:
        if self.chunk_size > self.shard_size:
            raise ValueError("CATALOG_CHUNK_SIZE must not exceed CATALOG_SHARD_SIZE")
        return self


def load_environment(folder: Path = PROJECT_ROOT) -> None:
    """Fill ``os.environ`` from ``.env``, and from the local stack's file when no location is set.

    Variables that are set already win, but for AWS credentials where the bucket is that of the local stack:
    only its own open it.
    """
    load_env_file(folder)
    stack = folder / LOCAL_STACK_FOLDER.name / LOCAL_STACK_ENVIRONMENT
    if names_locations() or not stack.is_file():
        return
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    values = dotenv_values(stack, interpolate=False)
    os.environ.update({name: value for name, value in values.items() if name.startswith("AWS_") and value})
    _set_missing(values)


def load_env_file(folder: Path = PROJECT_ROOT) -> None:
    """Fill ``os.environ`` from ``.env`` alone; variables that are set already win."""
    _set_missing(dotenv_values(folder / ".env", interpolate=False))


def names_locations(folder: Path | None = None) -> bool:
    """Whether the environment, or the ``.env`` of a folder, names a database or bucket of the user's own."""
    named = dotenv_values(folder / ".env", interpolate=False) if folder else {}
    return any(os.environ.get(name) or named.get(name) for name in LOCATIONS)


def _set_missing(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value:
            os.environ.setdefault(name, value)


def load_settings(source_uri: str | None = None) -> Settings:
    """Read and check the settings; a ``source_uri`` given here wins over the environment.

    Raises:
        PermanentError: a setting is missing or wrong; the message names each by its variable.
    """
    load_environment()
    try:
        return Settings(**({"source_uri": source_uri} if source_uri else {}))  # type: ignore[arg-type]
    except ValidationError as error:
        raise PermanentError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        name = f"CATALOG_{fault['loc'][0]}".upper() if fault["loc"] else "settings"
        is_missing = fault["type"] == "missing"
        faults.append(f"{name} is not set" if is_missing else f"{name}: {fault['msg'].removeprefix('Value error, ')}")
    return f"{'; '.join(faults)} (see .env.example; `make ui` starts a local stack that sets them)"
