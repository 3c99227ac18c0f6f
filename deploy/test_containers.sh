#!/usr/bin/env bash
# Builds the images, starts docker-compose.yml as it is and calls it from outside: OpenAI's SDK and the stubs.
#
#   deploy/test_containers.sh [PROFILE]...    e.g. postgres, scale; none is the default four services and Redis
#
#   ENGINE      docker (default) or podman (with podman-compose)
#   BUILD       0 takes the images that are there
#   TORCH       which torch to build with, as in the Makefile
#   KEEP        1 leaves it running
# Prints the size of each image and exits 0 if every call was answered.
set -euo pipefail
cd "$(dirname "$0")/.."
ENGINE=${ENGINE:-docker}
export COMPOSE_PROJECT_NAME=millrace-test MILLRACE_PORT=${MILLRACE_PORT:-18080} MILLRACE_TAG=${MILLRACE_TAG:-dev}
# The same in all replicas.
MILLRACE_PEPPER=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export MILLRACE_PEPPER
profiles=()
for profile in "$@"; do
  profiles+=(--profile "$profile")
  case $profile in
    postgres | scale) export MILLRACE_DATABASE_URL=postgresql+asyncpg://millrace:millrace@postgres/millrace ;;
  esac
done
if [ "$ENGINE" = podman ]; then compose=(podman-compose "${profiles[@]}"); else compose=(docker compose "${profiles[@]}"); fi

stop() {
  [ "${KEEP:-0}" = 1 ] && return
  "${compose[@]}" down --volumes >/dev/null 2>&1 || true
}
trap stop EXIT

if [ "${BUILD:-1}" = 1 ]; then "${compose[@]}" build; fi
for name in edge inference cache safety; do
  echo "image $name: $("$ENGINE" image inspect --format '{{.Size}}' "millrace/$name:$MILLRACE_TAG") bytes"
done
"${compose[@]}" up --detach
# The stubs go the way of an internal caller: from a container beside the services.
.venv/bin/python -m tests.deploy.callers "http://127.0.0.1:$MILLRACE_PORT"
"${compose[@]}" ps
