"""Fail to load as a DAG file."""

from airflow.sdk import DAG

raise ValueError(f"no {DAG.__name__} here")
