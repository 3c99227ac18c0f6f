#!/usr/bin/env bash
# Generates the Python stubs of protos/ into gen/ (or into the folder given), with the pinned grpcio-tools.
#
#   tools/gen.sh [OUT]
#
# Each service's protos stand alone, so each is generated alone: a mistake in one leaves the others' stubs fresh and its
# own untouched. There is no __init__.py on purpose: `millrace` is a namespace package, so that other wheels can join it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
out=${1:-gen}
mkdir -p "$out/millrace"
exec 9<tools/gen.sh && flock 9 # two runs at once would mix their files
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

generate() { # FOLDER: generates every proto of one service version, all or nothing
  local folder=$1
  rm -rf "${fresh:?}/out" && mkdir "$fresh/out"
  "$bin/python" -m grpc_tools.protoc --proto_path=protos \
    --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
    --python_out="$fresh/out" --pyi_out="$fresh/out" \
    --grpc_python_out="$fresh/out" --mypy_grpc_out=quiet:"$fresh/out" \
    "$folder"/*.proto || return
  touch "$fresh/out/${folder#protos/}/py.typed"
  # grpc_tools and mypy_grpc also write empty service stubs for files without a service: they only add noise.
  for proto in "$folder"/*.proto; do
    grep -q '^service ' "$proto" || rm -f "$fresh/out/${proto:7:-6}"_pb2_grpc.py{,i}
  done
  mkdir -p "$out/${folder#protos/}"
  find "$out/${folder#protos/}" -maxdepth 1 -type f -delete
  cp "$fresh/out/${folder#protos/}"/* "$out/${folder#protos/}/"
}

failed=()
for folder in protos/millrace/*/v*/; do
  folder=${folder%/}
  compgen -G "$folder/*.proto" >/dev/null || continue
  generate "$folder" && echo "gen: $folder" || failed+=("$folder")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "gen: failed, stubs left as they were: ${failed[*]}" >&2
  exit 1
fi
