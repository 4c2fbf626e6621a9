"""Types of settings, each with the check that its values must pass. No message contains a secret."""

import json
import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from jobs.storage.locations import S3Uri

Level = Literal["info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Levels of the notifications, in ascending order."""
NO_SCHEDULE = "none"


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
        raise ValueError(f"is not a regular expression: {error}") from None
    if "product_id" not in groups:
        raise ValueError("must be a regular expression with a group (?P<product_id>...)")
    return pattern


def _require_schedule(schedule: str) -> str:
    from croniter import croniter

    if schedule != NO_SCHEDULE and not croniter.is_valid(schedule):
        raise ValueError(f'must be a cron expression, such as "0 2 * * *", or {NO_SCHEDULE}')
    return schedule


def _require_notify_url(url: str) -> str:
    # The message does not contain the URL, because it may contain a password.
    if not re.fullmatch(rf"(({'|'.join(LEVELS)}):)?[a-z][a-z0-9]*://\S+", url):
        raise ValueError(
            f"must be a JSON list of Apprise URLs. {', '.join(LEVELS)} may precede a URL: error:json://host"
        )
    return url


def _read_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError("must be a JSON list") from None


def _require_own_names(webhooks: "tuple[Webhook, ...]") -> "tuple[Webhook, ...]":
    if len({webhook.name for webhook in webhooks}) < len(webhooks):
        raise ValueError("two webhooks have the same name")
    return webhooks


class Webhook(BaseModel):
    """Where to post changes. The secret signs them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,50}$")]
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
    secret: Annotated[str, Field(pattern=r"^[\x21-\x7e]{16,}$", repr=False)]


Location = Annotated[str, AfterValidator(_require_s3)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_read_list)]
Locations = Annotated[tuple[Location, ...], BeforeValidator(_read_list)]
Schedule = Annotated[str, AfterValidator(_require_schedule)]
NotifyUrls = Annotated[tuple[Annotated[str, AfterValidator(_require_notify_url)], ...], BeforeValidator(_read_list)]
Webhooks = Annotated[
    tuple[Webhook, ...], Field(max_length=8), BeforeValidator(_read_list), AfterValidator(_require_own_names)
]
Share = Annotated[float, Field(ge=0, le=1)]
ShareUpToHalf = Annotated[float, Field(gt=0, le=0.5)]
Count = Annotated[int, Field(ge=1)]
DatabaseUrl = Annotated[str, AfterValidator(_require_postgres)]
ProductPattern = Annotated[str, AfterValidator(_require_product_group)]
