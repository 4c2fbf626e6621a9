"""Check the installation: settings, bucket, database, models, Airflow, query service and the machine."""
