#!/bin/bash
# Run once by the PostgreSQL image: a role and a database per service, and a reader for the dashboard.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set ledger="${LEDGER_PASSWORD:?}" --set reader="${LEDGER_READER_PASSWORD:?}" --set mlflow="${MLFLOW_DB_PASSWORD:?}" <<'SQL'
CREATE ROLE ledger LOGIN PASSWORD :'ledger';
CREATE ROLE ledger_reader LOGIN PASSWORD :'reader';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE ledger OWNER ledger;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
REVOKE CONNECT ON DATABASE ledger, mlflow, mlflow_auth FROM PUBLIC;
GRANT CONNECT ON DATABASE ledger TO ledger_reader;
\connect ledger
GRANT USAGE ON SCHEMA public TO ledger_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE ledger IN SCHEMA public GRANT SELECT ON TABLES TO ledger_reader;
SQL
