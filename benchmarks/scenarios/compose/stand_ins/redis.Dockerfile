# Redis from Debian.
ARG BASE
FROM ${BASE}
RUN apt-get -qq update \
    && apt-get -qq install --yes --no-install-recommends redis-server > /dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=redis --group=redis /data
