"""The pages that Airflow's API server mounts at ``/catalog``."""
