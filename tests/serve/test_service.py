"""Check that the service returns the same results as a nightly run stores."""

import numpy as np
import pytest
from sqlalchemy import text

from fixtures.shop import Shop, make_image
from jobs.search.encoders import load_text_embedder
from jobs.serve.client import QueryClient
from tests.serve.conftest import RunningService


def test_an_image_gets_the_vector_of_the_nightly_run(service: RunningService, live_shop: Shop) -> None:
    with QueryClient(service.url) as client:
        answers = [client.embed_image(make_image(number)) for number in range(4)]
    stored = live_shop.query("""
        SELECT e.space_id, s.encoder_version_id, CAST(e.embedding AS real[])
        FROM catalog.image_embeddings e JOIN catalog.embedding_spaces s USING (space_id)
        JOIN catalog.images i USING (image_id) ORDER BY object_key
    """)
    for answer, (space_id, encoder, vector) in zip(answers, stored, strict=True):
        assert (answer.space_id, answer.model_version_id) == (space_id, encoder)
        assert np.linalg.norm(answer.vector) == pytest.approx(1, abs=1e-3)
        assert float(np.dot(answer.vector, vector)) == pytest.approx(1, abs=2e-3)
    assert abs(float(np.dot(answers[0].vector, answers[1].vector))) < 0.999


def test_an_image_gets_the_tag_of_the_nightly_run(service: RunningService, live_shop: Shop) -> None:
    with QueryClient(service.url) as client:
        answers = [client.classify(make_image(number)) for number in range(4)]
    stored = live_shop.query("""
        SELECT classifier_version_id, category, confidence, top_3
        FROM catalog.image_tags JOIN catalog.images USING (image_id) ORDER BY object_key
    """)
    for answer, (classifier, category, confidence, top_3) in zip(answers, stored, strict=True):
        assert (answer.model_version_id, answer.category) == (classifier, category)
        assert answer.confidence == pytest.approx(confidence, abs=5e-3)
        assert [ranked.category for ranked in answer.top_3] == [one["category"] for one in top_3]


def test_a_text_gets_the_vector_of_the_text_tower(service: RunningService, live_shop: Shop) -> None:
    with QueryClient(service.url) as client:
        answer = client.embed_text("red striped dress")
    with live_shop.connections.engine.connect() as connection:
        space_id, encoder = connection.execute(
            text("SELECT space_id, encoder_version_id FROM catalog.embedding_spaces WHERE state = 'live'")
        ).one()
    assert (answer.space_id, answer.model_version_id) == (space_id, encoder)
    expected = load_text_embedder(live_shop.connections, encoder).embed(["red striped dress"])[0]
    assert np.allclose(answer.vector, expected, atol=1e-5)
