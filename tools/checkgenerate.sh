#!/usr/bin/env bash
# Fails when the committed stubs are not those that tools/gen.sh makes of protos/ now.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
tools/gen.sh "$fresh" >/dev/null
if ! diff -r --brief --exclude=__pycache__ "$fresh/millrace" gen/millrace; then
  echo "checkgenerate: stubs are stale: run make gen and commit the result" >&2
  exit 1
fi
echo "checkgenerate: ok"
