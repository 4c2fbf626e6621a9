"""The catalog in Airflow's UI: pages that are rendered on the server, loaded when somebody first asks for one."""
