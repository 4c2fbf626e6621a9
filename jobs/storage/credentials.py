"""Credentials of the bucket: what the settings say of them, and the session of boto3 that they open."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from jobs.errors import ConfigurationError

if TYPE_CHECKING:
    import boto3

VARIABLES = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_DEFAULT_REGION",
    "profile": "AWS_PROFILE",
}


@dataclass(frozen=True)
class AwsCredentials:
    """Credentials that the settings name; for what they leave out, boto3 searches by its own chain."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    profile: str | None = None

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> Self:
        """Take the credentials out of all variables.

        Raises:
            ConfigurationError: half of the key is missing.
        """
        credentials = cls(**{name: variables.get(variable) or None for name, variable in VARIABLES.items()})
        if bool(credentials.access_key_id) != bool(credentials.secret_access_key):
            missing = VARIABLES["secret_access_key" if credentials.access_key_id else "access_key_id"]
            raise ConfigurationError(
                f"{missing} is not set, but the other half of the credentials is (see .env.example)"
            )
        return credentials

    def open_session(self) -> "boto3.Session":
        """Open a session of its own: the shared one keeps the credentials of the first endpoint for all others.

        Raises:
            BotoCoreError: there is no such profile, or the shared configuration is broken.
        """
        import boto3
        import botocore.session

        # A key is used without the profile that the environment may name. A profile stands where AWS_PROFILE would:
        # boto3's own argument would also switch off the roles that the environment names.
        is_given = self.access_key_id or self.profile
        core = botocore.session.Session({"profile": (None, None, self.profile, None)} if is_given else None)
        return boto3.Session(
            self.access_key_id, self.secret_access_key, self.session_token, self.region, botocore_session=core
        )
