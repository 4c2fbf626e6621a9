# syntax=docker/dockerfile:1.7

# Not apache/airflow:3.3.2, which brings its own versions of SQLAlchemy and of much else: this image holds those of the
# constraints, which were run together.
FROM python:3.11.15-slim-bookworm

ENV AIRFLOW_HOME=/opt/airflow \
    CATALOG_MODEL_CACHE=/var/cache/catalog \
    PYTHONPATH=/opt/catalog \
    PYTHONUNBUFFERED=1

# Volumes that are mounted on these folders take over their owner.
RUN useradd --uid 10001 --user-group --create-home catalog \
    && install --directory --owner=catalog --group=catalog /opt/airflow /opt/airflow/logs /var/cache/catalog

# The slow layer: built again only when a requirement changes. torch's usual wheel for Linux brings CUDA, so that one
# image serves CPUs and GPUs; an index of CPU wheels makes it several GB smaller:
#   docker compose build --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/requirements
COPY requirements.txt constraints.txt requirements-compose.txt requirements-compose-lock.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --requirement=requirements.txt --constraint=constraints.txt \
    --requirement=requirements-compose.txt --constraint=requirements-compose-lock.txt

WORKDIR /opt/catalog
COPY sql sql
COPY plugins plugins
COPY dags dags
COPY jobs jobs

USER 10001:10001
CMD ["python", "-m", "jobs", "--help"]
