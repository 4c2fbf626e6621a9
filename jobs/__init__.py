"""The jobs. Every module here runs without Airflow."""
