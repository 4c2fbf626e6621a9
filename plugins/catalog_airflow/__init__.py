"""Operators, links, plugin and pages of the catalog in Airflow."""
