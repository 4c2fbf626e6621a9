# Two images: `airflow` for Airflow's servers, without torch and OpenVINO, and `worker` for jobs. `make image` builds both.

# Not apache/airflow:3.3.2, which brings its own versions of SQLAlchemy and of much else: these images hold those of the
# lock file, which were tested together.
FROM python:3.11.15-slim-bookworm AS airflow-requirements

ENV AIRFLOW_HOME=/opt/airflow \
    CATALOG_MODEL_CACHE=/var/cache/catalog \
    HF_HOME=/var/cache/catalog/hub \
    PYTHONPATH=/opt/catalog \
    PYTHONUNBUFFERED=1 \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy

# Volumes that are mounted on these folders take over their owner.
RUN useradd --uid 10001 --user-group --create-home catalog \
    && install --directory --owner=catalog --group=catalog /opt/airflow /opt/airflow/logs /var/cache/catalog

# The slow layers: built again only when a requirement changes. setuptools builds the command `catalog` below. Modules are
# compiled here, because the user below cannot store them, and every process would compile them again.
WORKDIR /opt/requirements
COPY requirements-airflow.txt requirements-compose.txt requirements.lock ./
RUN --mount=type=cache,target=/root/.cache \
    sed -n '/^\(uv\|setuptools\)==/,/[^\\]$/p' requirements.lock > installers.txt \
    && pip install --require-hashes --requirement=installers.txt \
    && uv pip install --system --require-hashes --constraint=requirements.lock \
    --requirement=requirements-airflow.txt --requirement=requirements-compose.txt

# torch's usual wheel for Linux brings CUDA, so that one image serves CPUs and GPUs.
FROM airflow-requirements AS worker-requirements
COPY requirements.txt ./
RUN --mount=type=cache,target=/root/.cache \
    uv pip install --system --require-hashes --constraint=requirements.lock \
    --requirement=requirements.txt

FROM scratch AS code
COPY sql sql
COPY plugins plugins
COPY dags dags
COPY jobs jobs
COPY pyproject.toml ./

FROM airflow-requirements AS airflow
# The commit, which model versions name: docker build --build-arg CODE_VERSION=$(git describe --always --dirty) .
ARG CODE_VERSION=""
ENV CODE_VERSION=$CODE_VERSION
WORKDIR /opt/catalog
COPY --from=code / ./
RUN uv pip install --system --no-deps --no-build-isolation --editable . && python -m compileall -q .
USER 10001:10001
CMD ["catalog", "--help"]

FROM worker-requirements AS worker
ARG CODE_VERSION=""
ENV CODE_VERSION=$CODE_VERSION
WORKDIR /opt/catalog
COPY --from=code / ./
RUN uv pip install --system --no-deps --no-build-isolation --editable . && python -m compileall -q .
USER 10001:10001
CMD ["catalog", "--help"]
