#!/usr/bin/env bash
# Runs the tests; arguments are pytest's. What fails is run once more, by itself and in a new process, and is told as
# flaky where it passes then: with real servers on a busy machine, one test of thousands fails now and then. More than
# three failures are no flakes, and a leak in the telemetry never is one: those end the run.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly FLAKY_MAX=3 FAILED=.pytest_cache/v/cache/lastfailed

run() { .venv/bin/python -m pytest -rs --telemetry build/telemetry "$@"; }

rm -f "$FAILED"
status=0
run "$@" || status=$?
[ "$status" -eq 1 ] && [ -f "$FAILED" ] || exit "$status" # 1 is a failed test; a leak and a broken run have other numbers

mapfile -t failed < <(.venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$FAILED")
[ "${#failed[@]}" -le "$FLAKY_MAX" ] || exit "$status"
echo "--- once more, by themselves: ${failed[*]}"
run --last-failed --last-failed-no-failures none "$@"
printf 'flaky (failed, and passed when run again by itself): %s\n' "${failed[@]}"
