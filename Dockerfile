# syntax=docker/dockerfile:1.7

# Not apache/airflow:3.3.2, which brings its own versions of SQLAlchemy and of much else: this image holds those of the
# lock file, which were tested together.
FROM python:3.11.15-slim-bookworm

ENV AIRFLOW_HOME=/opt/airflow \
    CATALOG_MODEL_CACHE=/var/cache/catalog \
    HF_HOME=/var/cache/catalog/hub \
    PYTHONPATH=/opt/catalog \
    PYTHONUNBUFFERED=1

# Volumes that are mounted on these folders take over their owner.
RUN useradd --uid 10001 --user-group --create-home catalog \
    && install --directory --owner=catalog --group=catalog /opt/airflow /opt/airflow/logs /var/cache/catalog

# The slow layer: built again only when a requirement changes. torch's usual wheel for Linux brings CUDA, so that one
# image serves CPUs and GPUs.
WORKDIR /opt/requirements
COPY requirements.txt requirements-compose.txt requirements.lock ./
RUN --mount=type=cache,target=/root/.cache \
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
    && pip install --require-hashes --requirement=uv.txt \
    && uv pip install --system --link-mode=copy --require-hashes --constraint=requirements.lock \
    --requirement=requirements.txt --requirement=requirements-compose.txt

# The commit, which model versions name: docker build --build-arg CODE_VERSION=$(git describe --always --dirty) .
ARG CODE_VERSION=""
ENV CODE_VERSION=$CODE_VERSION

WORKDIR /opt/catalog
COPY sql sql
COPY plugins plugins
COPY dags dags
COPY jobs jobs
# The command `catalog`. setuptools, which builds it, is among the requirements.
COPY pyproject.toml ./
RUN uv pip install --system --no-deps --no-build-isolation --editable .

USER 10001:10001
CMD ["catalog", "--help"]
