-- Run once by the postgres container, as superuser, when its volume is empty: a database for each owner.

\getenv tagger_password POSTGRES_TAGGER_PASSWORD
\getenv airflow_password POSTGRES_AIRFLOW_PASSWORD

-- Not named after the schema, which Postgres would then search before all others.
CREATE ROLE tagger LOGIN PASSWORD :'tagger_password';
CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE DATABASE catalog OWNER tagger;
CREATE DATABASE airflow OWNER airflow;
REVOKE CONNECT ON DATABASE catalog, airflow FROM PUBLIC;

\connect catalog
-- Only a superuser may: the migration, which runs as the owner, finds it done.
CREATE EXTENSION vector;
