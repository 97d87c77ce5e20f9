#!/bin/bash
# As the official image's: subcommands of airflow by name, bash and python as they are; _AIRFLOW_DB_MIGRATE migrates first.
set -euo pipefail
if [[ ${_AIRFLOW_DB_MIGRATE:-false} == true ]]; then airflow db migrate; fi
case ${1:-} in
  bash | sh | python | airflow) exec "$@" ;;
  *) exec airflow "$@" ;;
esac
