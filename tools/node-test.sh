#!/usr/bin/env bash
# Runs the Node tests: installs their packages, makes the TypeScript stubs, starts a suite on free ports, stops it after.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v npm >/dev/null || { echo "node-test: npm is missing; install Node.js 20 or newer" >&2; exit 1; }

(cd tests/node && npm install --no-package-lock --no-audit --no-fund --silent)
PATH="$PWD/tests/node/node_modules/.bin:$PATH" .venv/bin/buf generate

mapfile -t ports < <(.venv/bin/python - <<'PY'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(each.getsockname()[1] for each in sockets), sep="\n")
PY
)
export MILLRACE_EDGE_PORT=${ports[0]} MILLRACE_INFERENCE_PORT=${ports[1]}
export MILLRACE_CACHE_PORT=${ports[2]} MILLRACE_SAFETY_PORT=${ports[3]}
scratch=$(mktemp -d)
export MILLRACE_CACHE_PATH=$scratch/cache.sqlite3
export MILLRACE_URL=http://127.0.0.1:${ports[0]} MILLRACE_TARGET=127.0.0.1:${ports[1]}

.venv/bin/millrace up >"$scratch/up.log" 2>&1 &
suite=$!
trap 'kill "$suite" 2>/dev/null || true; rm -rf "$scratch"' EXIT
for _ in $(seq 600); do
  .venv/bin/python -m kit.healthcheck "$MILLRACE_URL/readyz" 2>/dev/null && break
  kill -0 "$suite" 2>/dev/null || { cat "$scratch/up.log" >&2; exit 1; }
  sleep 0.1
done

(cd tests/node && npm test --silent)

kill "$suite"
wait "$suite" || { echo "node-test: the suite did not stop well" >&2; tail -n 40 "$scratch/up.log" >&2; exit 1; }
echo "node-test: ok"
