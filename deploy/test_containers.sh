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
.venv/bin/python -m tests.deploy.callers "http://127.0.0.1:$MILLRACE_PORT"
# The stubs go the way of an internal caller: from a container beside the services, over every replica.
"${compose[@]}" exec -T edge python -c '
import grpc
from millrace.inference.v1 import generation_pb2 as g, inference_service_pb2 as pb, inference_service_pb2_grpc as rpc

message = g.Message(role=g.ROLE_USER, parts=[g.ContentPart(text="What is Millrace?")])
spec = g.GenerationSpec(model="auto", conversation=g.Conversation(messages=[message]))
balanced = [("grpc.lb_policy_name", "round_robin")]
with grpc.insecure_channel("dns:///inference:50051", options=balanced) as channel:
    stub = rpc.InferenceServiceStub(channel)
    for _ in range(6):
        events = list(stub.StreamGenerate(pb.StreamGenerateRequest(spec=spec), timeout=60, wait_for_ready=True))
        assert events[0].HasField("started") and events[-1].HasField("completed"), events
print("streamed over gRPC: 6 answers")
'
"${compose[@]}" ps
