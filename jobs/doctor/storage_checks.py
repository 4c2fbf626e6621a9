"""Check the two locations in the bucket: list, read and write."""

from jobs.connections import Connections
from jobs.doctor.checks import Finding
from jobs.errors import ConfigurationError, RetryableError
from jobs.failures import ReadReason
from jobs.storage.locations import S3Uri

PROBE = "doctor/probe"
_PROBE_CONTENT = b"written by `catalog doctor`; may be deleted"


def check_source(connections: Connections) -> Finding:
    """Check that the images can be listed, and that one of them can be read."""
    source = connections.source
    first = next(connections.store.list_pages(source))
    if not first:
        return Finding(f"{source} is empty: upload images, or check CATALOG_SOURCE_URI", "warning")
    smallest = min(first, key=lambda item: item.size_bytes)
    limit = connections.settings.images.max_object_bytes
    location = S3Uri(source.bucket, smallest.key)
    content = connections.store.read_unchanged(location, smallest.etag, limit, smallest.size_bytes)
    if content in (ReadReason.ACCESS_DENIED, ReadReason.REFUSED):
        raise ConfigurationError(f"{location} is listed, but cannot be read: allow the credentials to get objects")
    return Finding(f"{source} can be listed and read")


def check_artifacts(connections: Connections) -> Finding:
    """Check that artifacts can be written, read, listed and deleted."""
    store, location = connections.store, connections.artifacts / PROBE
    store.write(location, _PROBE_CONTENT)
    if store.read(location) != _PROBE_CONTENT or not store.exists(location):
        raise RetryableError(f"{location} was written, but the endpoint lists or returns something else")
    try:
        store.delete(location)
    except ConfigurationError as error:
        return Finding(f"can be written and read, but not deleted, which `catalog forget` needs: {error}", "warning")
    return Finding(f"{connections.artifacts} can be listed, read and written")
