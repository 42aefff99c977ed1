#!/bin/sh
# The MLflow server: PostgreSQL for runs and users, an S3 bucket for artifacts, basic authentication in front.
# Passwords come from PGPASSWORD and MLFLOW_AUTH_ADMIN_PASSWORD, so that no command line or URL holds one.
set -eu

: "${PGPASSWORD:?password of the role mlflow}"
: "${MLFLOW_AUTH_ADMIN_USERNAME:?}" "${MLFLOW_AUTH_ADMIN_PASSWORD:?}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
database=${MLFLOW_DATABASE:-postgresql+psycopg2://mlflow@postgres/mlflow}
artifacts=${MLFLOW_ARTIFACTS:-s3://mlflow}

case $artifacts in
  s3://*)
    BUCKET=${artifacts#s3://} python - <<'PYTHON'
import os

import boto3
from botocore.exceptions import ClientError

s3 = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
try:
    s3.head_bucket(Bucket=os.environ["BUCKET"].split("/")[0])
except ClientError:
    s3.create_bucket(Bucket=os.environ["BUCKET"].split("/")[0])
PYTHON
    ;;
esac

# One worker: several make every request ten times slower (see docs, "Scale to a cluster").
exec mlflow server --app-name basic-auth --backend-store-uri "$database" --artifacts-destination "$artifacts" \
  --host "${MLFLOW_HOST:-0.0.0.0}" --port "${MLFLOW_PORT:-5000}" --workers 1 \
  --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-mlflow:5000,localhost:5000,127.0.0.1:5000}"
