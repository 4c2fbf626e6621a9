from sqlalchemy import Engine, text

from jobs.database.drift_references import DriftReference, read_drift_reference, upsert_drift_reference
from jobs.database.model_versions import NewModelVersion, insert_model_version

ON_TEST = DriftReference({"dress": 3, "hat": 1}, [0, 0, 0, 0, 0, 1, 0, 0, 0, 3])
ON_CATALOG = DriftReference({"dress": 30}, [0, 0, 0, 0, 0, 0, 0, 0, 0, 30])


def insert_classifier(engine: Engine) -> int:
    version = NewModelVersion("classifier", "s3://a/m", "0" * 64, {}, ("dress", "hat"), None, None, "1", {}, {})
    with engine.begin() as connection:
        return insert_model_version(connection, version).model_version_id


def test_a_reference_comes_back(engine: Engine) -> None:
    version_id = insert_classifier(engine)
    with engine.begin() as connection:
        assert read_drift_reference(connection, version_id) is None
        upsert_drift_reference(connection, version_id, ON_TEST, "test")
        assert read_drift_reference(connection, version_id) == ON_TEST


def test_what_was_measured_on_the_catalog_replaces_test_images_and_stays(engine: Engine) -> None:
    version_id = insert_classifier(engine)
    with engine.begin() as connection:
        upsert_drift_reference(connection, version_id, ON_TEST, "test")
        upsert_drift_reference(connection, version_id, ON_CATALOG, "catalog")
        assert read_drift_reference(connection, version_id) == ON_CATALOG
        upsert_drift_reference(connection, version_id, ON_TEST, "test")
        assert read_drift_reference(connection, version_id) == ON_CATALOG
        measured_on = connection.execute(text("SELECT measured_on FROM catalog.drift_references")).scalar_one()
        assert measured_on == "catalog"
