"""Checkpoints of the Hugging Face hub: the files that are needed, and in words what keeps them from coming."""

from pathlib import Path

from jobs.errors import PermanentError
from jobs.models.checkpoint import first_line
from jobs.models.weight_files import SMALL_FILES, choose_weights


def download(base: str, setting: str) -> Path:
    """The folder of a hub id (``owner/name[@revision]``) in the cache of the hub's client.

    It holds the small files of the repository and one kind of weights, the best that there is. Without network, what
    was downloaded before is used.

    Raises:
        PermanentError: the hub does not have it, does not hand it out, or is away.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = base.partition("@")
    try:
        top = snapshot_download(
            name, revision=revision or None, allow_patterns=list(SMALL_FILES), ignore_patterns=["*/*"]
        )
        folder = Path(top)
        try:
            names = [file.path for file in get_cached_repo_tree(name, revision=folder.name)]
        except CachedRepoTreeNotFoundError:
            # An older client has filled the cache, and the hub is away.
            names = [path.name for path in folder.iterdir()]
        if weights := choose_weights(names):
            snapshot_download(name, revision=folder.name, allow_patterns=list(weights))
    except HFValidationError as error:
        raise PermanentError(f"{setting}={base}: neither a directory nor a hub id ({error})") from None
    except GatedRepoError:
        raise PermanentError(
            f"{setting}={base}: the hub restricts access to it; accept its conditions on its page, and set HF_TOKEN to "
            "a token of the account that did"
        ) from None
    except RepositoryNotFoundError:
        raise PermanentError(
            f"{setting}={base}: the hub has no such repository, or it is private: check the name, or set HF_TOKEN to a "
            "token of an account that may read it"
        ) from None
    except RevisionNotFoundError:
        raise PermanentError(
            f"{setting}={base}: {name} has no revision {revision}: check the name after the @"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise PermanentError(
            f"{setting}={base}: cannot be downloaded ({first_line(error)}); on a machine with network run "
            f"`hf download {name} --local-dir FOLDER`, copy the folder here and set {setting}=FOLDER"
        ) from None
    return folder
