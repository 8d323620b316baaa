#!/bin/sh
# Loads the flights into the database at SOURCE_DATABASE_URL; again, and it holds the same rows.
# Needs python3 with pip, and psql.
set -eu
: "${SOURCE_DATABASE_URL:?is not set; the database to load the flights into}"
cd "$(dirname "$0")"
python3 fetch.py
psql "$SOURCE_DATABASE_URL" --no-psqlrc --quiet -v ON_ERROR_STOP=1 --single-transaction \
    -f flights.sql \
    -c "\copy flights FROM 'flights.csv' (FORMAT csv, HEADER, NULL 'NA')" \
    -c 'ANALYZE flights' \
    -c "SELECT count(*) AS flights, min(scheduled), max(scheduled) FROM flights"
