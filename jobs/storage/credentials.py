"""Read the credentials of the bucket from the settings, and open boto3 sessions with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from jobs.errors import ConfigurationError

if TYPE_CHECKING:
    import boto3

AWS_VARIABLES = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_DEFAULT_REGION",
    "profile": "AWS_PROFILE",
}


@dataclass(frozen=True)
class AwsCredentials:
    """Credentials from the settings. boto3 searches its own chain for those that are missing."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    profile: str | None = None

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> Self:
        """Select the credentials from all variables.

        Raises:
            ConfigurationError: only one of the two parts of the key is set.
        """
        credentials = cls(**{name: variables.get(variable) or None for name, variable in AWS_VARIABLES.items()})
        if bool(credentials.access_key_id) != bool(credentials.secret_access_key):
            missing = AWS_VARIABLES["secret_access_key" if credentials.access_key_id else "access_key_id"]
            raise ConfigurationError(f"{missing} is not set, but the other half of the key is (see .env.example)")
        return credentials

    def open_session(self) -> "boto3.Session":
        """Open a new boto3 session. The default session would keep the credentials of the first endpoint.

        Raises:
            BotoCoreError: the profile does not exist, or the shared configuration is invalid.
        """
        import boto3
        import botocore.session

        # With a key, ignore AWS_PROFILE. Set a profile the way AWS_PROFILE does, because the argument of boto3.Session
        # would also disable the roles in the environment.
        is_given = self.access_key_id or self.profile
        core = botocore.session.Session({"profile": (None, None, self.profile, None)} if is_given else None)
        return boto3.Session(
            self.access_key_id, self.secret_access_key, self.session_token, self.region, botocore_session=core
        )
