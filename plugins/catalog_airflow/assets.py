"""What one DAG announces to another."""

from airflow.sdk import Asset

PROMOTION = Asset(name="catalog_promotion", uri="x-catalog://promotion")
"""A champion was promoted: `catalog_retag` brings the catalog over."""

DRIFT = Asset(name="catalog_drift", uri="x-catalog://drift")
"""The photos of a night look unlike those that the champion was accepted on: `model_retrain` trains anew.

Announced once a week at most for one classifier.
"""
