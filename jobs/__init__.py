"""The jobs: every module here runs without Airflow."""
