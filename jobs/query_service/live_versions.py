"""Which versions the query service has to answer by now."""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class LiveEncoder:
    """The encoder of the live space."""

    model_version_id: int
    space_id: int

    def __str__(self) -> str:
        return f"{self.model_version_id} of space {self.space_id}"


@dataclass(frozen=True)
class LiveVersions:
    """None of a kind before its first."""

    classifier: int | None
    encoder: LiveEncoder | None


def read_live_versions(connection: Connection) -> LiveVersions:
    """Both by one statement, so that they are of one moment."""
    row = connection.execute(
        text("""
            SELECT (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier') AS classifier,
                   s.encoder_version_id, s.space_id
            FROM (VALUES (1)) AS one (line) LEFT JOIN catalog.embedding_spaces s ON s.state = 'live'
        """)
    ).one()
    encoder = LiveEncoder(row.encoder_version_id, row.space_id) if row.space_id is not None else None
    return LiveVersions(row.classifier, encoder)
