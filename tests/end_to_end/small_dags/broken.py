"""A file that Airflow takes for one of DAGs, and cannot load."""

from airflow.sdk import DAG

raise ValueError(f"no {DAG.__name__} here")
