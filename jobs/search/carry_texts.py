"""Texts that were embedded once stay askable when another encoder answers."""

import logging

from jobs.connections import Connections
from jobs.database.text_queries import count_missing_texts, insert_text_vectors, list_missing_texts
from jobs.search.encoders import load_text_embedder

log = logging.getLogger(__name__)

TEXTS_AT_A_TIME = 256


def carry_texts(connections: Connections, encoder_version_id: int) -> int:
    """Have an encoder embed every stored text that it has not embedded yet; returns how many.

    The encoder is loaded only when there is such a text. Killed and called again, it goes on.

    Raises:
        PermanentError: the checkpoint is not what was registered.
    """
    with connections.engine.connect() as connection:
        missing = count_missing_texts(connection, encoder_version_id)
    if not missing:
        return 0
    log.info("embedding %d stored texts by encoder %d", missing, encoder_version_id)
    embedder = load_text_embedder(connections, encoder_version_id)
    carried = 0
    while True:
        with connections.engine.begin() as connection:
            texts = list_missing_texts(connection, encoder_version_id, TEXTS_AT_A_TIME)
            if not texts:
                return carried
            insert_text_vectors(connection, encoder_version_id, texts, embedder.embed(texts))
        carried += len(texts)
