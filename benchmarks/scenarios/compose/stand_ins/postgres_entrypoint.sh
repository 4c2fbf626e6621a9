#!/bin/sh
# Create the cluster at the first start and run the scripts in /docker-entrypoint-initdb.d, as the official image does.
set -eu
data=/var/lib/postgresql/18/docker
if [ "$(id -u)" = 0 ]; then
  chown postgres /var/lib/postgresql
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0"
fi
if [ ! -s "$data/PG_VERSION" ]; then
  mkdir -p "$data"
  printf %s "$POSTGRES_PASSWORD" > /tmp/password
  initdb --pgdata="$data" --username=postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
  # On the socket alone, so that nothing connects before the scripts have run.
  pg_ctl --pgdata="$data" --options="-c listen_addresses=''" --wait start
  for script in /docker-entrypoint-initdb.d/*.sql; do
    psql --no-psqlrc --username=postgres --set=ON_ERROR_STOP=1 --file="$script"
  done
  pg_ctl --pgdata="$data" --mode=fast --wait stop
fi
exec postgres -D "$data" -c listen_addresses='*'
