"""The local stack: Postgres, an S3 endpoint, the query service and Airflow on one machine."""
