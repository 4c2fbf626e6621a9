"""Read every setting once, check it, and pass it to the code that needs it.

Sources, highest precedence first: environment variables, ``.env``, and the file that the local stack wrote. That file
counts only if neither of the others sets a location, so a local stack cannot leak into production.

The process environment is never changed. Clients and child processes get the values from ``.env`` as arguments.
"""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jobs.cores import count_cores
from jobs.errors import ConfigurationError
from jobs.setting_types import (
    Count,
    DatabaseUrl,
    Location,
    Locations,
    NotifyUrls,
    ProductPattern,
    Schedule,
    Share,
    ShareUpToHalf,
    Texts,
    Webhooks,
)
from jobs.storage.credentials import AWS_VARIABLES, AwsCredentials
from jobs.storage.locations import S3Uri

PROJECT_ROOT = Path(__file__).resolve().parent.parent
HOME_VARIABLE = "CATALOG_HOME"
"""Variable with the folder of ``.env`` and ``.local`` if that is not the project's, for example in tests."""
HOME = PROJECT_ROOT / os.environ.get(HOME_VARIABLE, "")
LOCAL_STACK_FOLDER = HOME / ".local"
LOCAL_STACK_ENVIRONMENT = "stack.env"
PREFIX = "CATALOG_"
LOCATIONS = ("CATALOG_DATABASE_URL", "CATALOG_SOURCE_URI", "CATALOG_ARTIFACTS_URI", "CATALOG_S3_ENDPOINT_URL")
_PARTS_OF_A_KEY = ("AWS_PROFILE", "AWS_SESSION_TOKEN")
_READ_FROM_FILE = (PREFIX, *AWS_VARIABLES.values(), "AIRFLOW_", "POSTGRES_", "REDIS_", "TAGGING_", "CODE_VERSION")
"""Prefixes of the variables that the jobs or Docker Compose read from ``.env``."""


FilePath = Annotated[Path, AfterValidator(lambda path: HOME / path)]
"""A relative path is relative to the project, whatever folder a job runs in."""


fixed = partial(Field, exclude=True)
"""A value that no environment variable sets, because no operator needs to change it. Tests pass their own."""


def derived(derive: Callable[[dict[str, Any]], int]) -> Any:
    """Declare a value that is computed from the fields above it. No environment variable sets it."""
    return Field(default_factory=derive, exclude=True)


class SettingsGroup(BaseModel):
    """Settings that belong together.

    The environment variable of a field is ``CATALOG_`` and the field's name in capitals. ``fixed`` and ``derived``
    fields have no variable: see docs/decisions/settings.md. The docstrings of groups and fields become the comments in
    ``.env.example``, so run ``make settings`` after a change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LocationSettings(SettingsGroup):
    """Where the data is.

    The local stack and Docker Compose set their own locations. Compose passes yours on if you set them; there,
    127.0.0.1 would be the container itself.
    """

    database_url: DatabaseUrl
    """The catalog, in Postgres with pgvector 0.8.4 or newer: postgresql://USER:PASSWORD@HOST:PORT/NAME"""
    source_uri: Location
    """The images: s3://bucket/prefix"""
    other_sources: Locations = ()
    """Other locations that a run may read instead, as a JSON list. Everything below CATALOG_SOURCE_URI is allowed."""
    inventory_uri: Location | None = None
    """The S3 Inventory of the bucket, to read instead of listing: s3://bucket/prefix/SOURCE_BUCKET/INVENTORY_NAME/"""
    event_queue_url: Annotated[str, Field(pattern="^https?://[^/]+/.+")] | None = None
    """The SQS queue with the events of the bucket, for `catalog watch`: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"""
    artifacts_uri: Location
    """Where the jobs store manifests, reports and weights: s3://bucket/prefix"""
    s3_endpoint_url: str | None = None
    """An S3 server other than AWS: http://host:port"""
    model_cache: FilePath = LOCAL_STACK_FOLDER / "models"
    """Folder for the weights of registered models. Docker Compose uses a volume."""


class ImageSettings(SettingsGroup):
    """What counts as an image and as a product."""

    exclude_patterns: Texts = ()
    """Keys below the prefix to skip, as a JSON list of shell patterns: ["drafts/*", "*_old.*"]"""
    product_id_pattern: ProductPattern = r"(?P<product_id>[^/]+?)(?:[_-]\d{1,2})?\.[^./]+$"
    """Regular expression whose group product_id finds the product in the key below the prefix. A key that does not
    match is a product of its own."""
    max_object_bytes: Count = 50_000_000
    """Larger objects are not read."""
    max_pixels: Count = 100_000_000
    """Images with more pixels are not decoded: they may be decompression bombs."""


class RunSettings(SettingsGroup):
    """When a run or a check fails, and what starts a retraining."""

    vanished_share_limit: Share = 0.2
    """Share of the known images that may disappear at once. Beyond it, a run stops before it changes anything."""
    failed_share_limit: Share = 0.01
    """Share of a run's images that may fail. Beyond it, the run counts as failed; the other images are saved."""
    drift_limit: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index of categories or confidences above which a run starts a retraining, at most weekly"""
    recall_bound: Share = 0.95
    """Share of the 10 true nearest images that searches must find. Clearly below it, the nightly check fails and the
    index is rebuilt, at most weekly."""

    drift_min_images: Count = fixed(200)
    max_attempts: Count = fixed(5)


class ComputeSettings(SettingsGroup):
    """Hardware, and how the work is split."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu or cuda"""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """Engine of new builds: auto (torch on a GPU, openvino on a CPU), torch or openvino"""
    precision: str = "auto"
    """Precision of new builds: auto (the fastest), int8 (openvino), bf16, fp16 (GPU) or fp32. A build that fails the
    fidelity gate is replaced by one in the next slower precision."""
    batch_size: Count | None = None
    """Images in a forward pass; by default what a short test on the GPU shows to be fast, and 16 on a CPU. A GPU that
    runs out of memory halves it."""
    decode_processes: Count = Field(default_factory=count_cores)
    """Processes that decode images; by default one for each core that the affinity and the container allow"""
    tagging_slots: Count = 1
    """Tasks that tag images at the same time, which is the size of Airflow's pool catalog_gpu: the number of GPUs, or
    of workers without one. The local stack sets its own."""
    shard_size: Count | None = None
    """Images in a shard, which is one task. By default, what takes about ten minutes at the speed of the latest runs,
    and at least one shard for each slot."""

    chunk_size: Count = derived(lambda values: min(256, math.ceil((values["shard_size"] or 768) / 3)))
    read_threads: Count = derived(lambda values: min(64, max(8, 4 * values["decode_processes"])))


class ServingSettings(SettingsGroup):
    """The query service (`catalog serve`) and its clients.

    Docker Compose sets its own host and port.
    """

    serve_host: str = "127.0.0.1"
    """Address to listen on. One that other machines can reach requires a token."""
    serve_port: Annotated[int, Field(ge=1, le=65535)] = 8091
    """Port to listen on. The local stack uses it at its first start if it is free."""
    query_service_url: str = "http://127.0.0.1:8091"
    """Where clients find the service"""
    query_token: Annotated[str, Field(pattern=r"^[\x21-\x7e]{16,}$")] | None = Field(default=None, repr=False)
    """Token that clients must send: at least 16 ASCII characters without spaces
    $ openssl rand -hex 24"""

    serve_queue_length: Count = fixed(64)
    serve_deadline_seconds: Annotated[float, Field(gt=0)] = fixed(10.0)


class DeliverySettings(SettingsGroup):
    """Where changes of products are sent."""

    webhooks: Webhooks = ()
    """Where the DAG catalog_deliver posts changes, as a JSON list of up to 8 objects with a name, a URL and a secret of
    at least 16 ASCII characters: [{"name": "shop", "url": "https://shop.example/tags", "secret": "..."}]"""


class TrainingSettings(SettingsGroup):
    """How candidates are trained and judged."""

    classifier_base: str = "microsoft/resnet-18"
    """Base of the classifier: a directory or a hub id, with @revision if you like. docs/models.md lists what works."""
    encoder_base: str = "openai/clip-vit-base-patch32"
    """Base of the encoder"""
    test_share: ShareUpToHalf = 0.1
    """Share of the labeled images to test on, at most 0.5. An image never leaves the test set again."""
    gate_policy: FilePath | None = None
    """TOML file that overrides bounds of the gates. jobs/retrain/gates/policy.toml lists them with their defaults."""


class AirflowSettings(SettingsGroup):
    """When Airflow starts runs by itself, whom it notifies, and where tasks run.

    A schedule is a cron expression in UTC, or none: then a run starts only by hand or after another one.
    """

    ingest_schedule: Schedule = "0 2 * * *"
    """When catalog_ingest starts: every night at 2"""
    retrain_schedule: Schedule = "0 4 * * 0"
    """When model_retrain starts: on Sunday at 4. Drift starts it as well."""
    maintenance_schedule: Schedule = "0 5 * * *"
    """When catalog_maintenance starts: every morning at 5"""
    deliver_schedule: Schedule = "*/5 * * * *"
    """When catalog_deliver starts: every five minutes"""
    notify_urls: NotifyUrls = Field(default=(), repr=False)
    """Where notifications go, as a JSON list of Apprise URLs. info, warning or error before a URL is the lowest level
    that it receives, by default info: ["mailtos://USER:PASSWORD@example.com", "error:slack://TOKENS"]"""
    placement: FilePath | None = None
    """TOML file with the queue, the executor and the pod of each task class. See docs/kubernetes.md"""
    python: FilePath | None = None
    """Interpreter of the jobs, if they have a virtual environment of their own. By default, that of Airflow"""


class Settings(SettingsGroup):
    """All settings."""

    locations: LocationSettings
    images: ImageSettings
    runs: RunSettings
    compute: ComputeSettings
    serving: ServingSettings
    delivery: DeliverySettings
    training: TrainingSettings
    airflow: AirflowSettings
    credentials: AwsCredentials = Field(default=AwsCredentials(), repr=False, exclude=True)


GROUPS: dict[str, type[SettingsGroup]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup)
}
VARIABLES = {
    f"{PREFIX}{name}".upper(): (group, name)
    for group, model in GROUPS.items()
    for name, field in model.model_fields.items()
    if not field.exclude
}
"""The group and field that each environment variable sets, by variable."""


def read_variables(home: Path = HOME) -> dict[str, str]:
    """Merge all sources. With the local stack, its credentials take precedence: only they are valid for its bucket."""
    own = read_own_variables(home)
    stack = home / LOCAL_STACK_FOLDER.name / LOCAL_STACK_ENVIRONMENT
    if names_locations(home) or not stack.is_file():
        return own
    of_stack = _read_file(stack)
    credentials = {name: value for name, value in of_stack.items() if name.startswith("AWS_")}
    return of_stack | merge_variables(own, credentials)


def read_own_variables(home: Path = HOME) -> dict[str, str]:
    """Merge the environment and ``.env``. Child processes get the result."""
    return merge_variables(_read_file(home / ".env"), os.environ)


def merge_variables(weaker: Mapping[str, str], stronger: Mapping[str, str]) -> dict[str, str]:
    """Merge two sources. If the stronger one has a key, drop the profile and session token of the weaker one."""
    left_out = _PARTS_OF_A_KEY if stronger.get("AWS_ACCESS_KEY_ID") else ()
    return {name: value for name, value in weaker.items() if name not in left_out} | dict(stronger)


def names_locations(home: Path = HOME) -> bool:
    """Return whether the environment or ``.env`` sets a database or a bucket."""
    variables = read_own_variables(home)
    return any(variables.get(name) for name in LOCATIONS)


def find_ignored_variables(home: Path = HOME) -> list[str]:
    """Return library variables in ``.env``, such as ``HF_TOKEN``. Libraries read only the environment, not ``.env``."""
    names = _read_file(home / ".env").keys() - os.environ.keys()
    return sorted(name for name in names if not name.startswith(_READ_FROM_FILE))


def _read_file(path: Path) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def load_settings(source_uri: str | None = None) -> Settings:
    """Read and check the settings. ``source_uri`` overrides the configured source.

    Raises:
        ConfigurationError: settings are missing or invalid (the message names their variables), or ``source_uri`` is
            not allowed. The right to start a run must not give access to other buckets.
    """
    variables = read_variables()
    if not source_uri:
        return make_settings(variables)
    configured = make_settings(variables)
    settings = make_settings(variables | {"CATALOG_SOURCE_URI": source_uri})
    allowed = (configured.locations.source_uri, *configured.locations.other_sources)
    if not any(S3Uri.parse(source_uri).is_within(S3Uri.parse(folder)) for folder in allowed):
        raise ConfigurationError(
            f"the source {source_uri} is not below CATALOG_SOURCE_URI={configured.locations.source_uri}. "
            "To allow it, add it to CATALOG_OTHER_SOURCES"
        )
    return settings


def make_settings(variables: Mapping[str, str]) -> Settings:
    """Check the settings in these variables. An empty variable counts as not set. Errors as in `load_settings`."""
    # A bound under a misspelled or outdated name would silently not count.
    unknown = sorted(name for name in variables if name.startswith(f"{PREFIX}GATE_") and name not in VARIABLES)
    if unknown:
        raise ConfigurationError(f"{', '.join(unknown)}: unknown. CATALOG_GATE_POLICY names a file with bounds")
    values = _group_values(variables)
    try:
        return Settings.model_validate({**values, "credentials": AwsCredentials.from_variables(variables)})
    except ValidationError as error:
        raise ConfigurationError(_describe(error)) from None


class _OnlyAirflow(SettingsGroup):
    airflow: AirflowSettings


def load_airflow_settings() -> AirflowSettings:
    """Read only this group, because Airflow's DAG processor has no location of the data.

    Raises:
        ConfigurationError: as in `load_settings`.
    """
    try:
        return _OnlyAirflow.model_validate({"airflow": _group_values(read_variables())["airflow"]}).airflow
    except ValidationError as error:
        raise ConfigurationError(_describe(error)) from None


def _group_values(variables: Mapping[str, str]) -> dict[str, dict[str, str]]:
    values: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for variable, (group, name) in VARIABLES.items():
        if value := variables.get(variable):
            values[group][name] = value
    return values


def _describe(error: ValidationError) -> str:
    errors = []
    for found in error.errors():
        if found["type"] == "default_factory_not_called":
            continue
        name = f"{PREFIX}{found['loc'][1]}".upper() if len(found["loc"]) > 1 else "settings"
        is_missing = found["type"] == "missing"
        errors.append(f"{name} is not set" if is_missing else f"{name}: {found['msg'].removeprefix('Value error, ')}")
    return f"{'; '.join(errors)} (see .env.example; `make ui` starts a local stack that sets them)"
