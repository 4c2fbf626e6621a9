"""The work: every module here runs without Airflow."""
