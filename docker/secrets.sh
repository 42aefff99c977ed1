#!/bin/sh
# Writes docker/.env: a random secret for every service of compose.yaml. Never overwrites one, never prints one.
set -eu

target="$(dirname "$0")/.env"
if [ -e "$target" ]; then
  echo "$target exists: nothing done. Remove it for new secrets; databases keep the passwords they were made with." >&2
  exit 1
fi

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
aside="$target.$$"
echo "COMPOSE_PROJECT_NAME=longrange" > "$aside"
for name in RAY_AUTH_TOKEN POSTGRES_PASSWORD LEDGER_PASSWORD LEDGER_READER_PASSWORD MLFLOW_DB_PASSWORD \
  MLFLOW_ADMIN_PASSWORD MLFLOW_SECRET_KEY S3_ACCESS_KEY S3_SECRET_KEY LONGRANGE_UI_TOKEN; do
  echo "$name=$(random)"
done >> "$aside"
mv "$aside" "$target"
echo "wrote $target (readable by you alone)"
