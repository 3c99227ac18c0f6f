#!/usr/bin/env bash
# Runs the tests. What fails in a whole run is run once more, by itself and in a new process, and is told as flaky where
# it passes then: with real servers on a busy machine, one test of thousands fails now and then. More than three failures
# are no flakes, and a leak in the telemetry never is one: those end the run. With arguments, pytest's, nothing is run
# again.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly FLAKY_MAX=3 FAILED=.pytest_cache/v/cache/lastfailed AGAIN=build/again.xml

# With `=`: apart, pytest takes the folder for one of tests as soon as it is there, and finds no tests/conftest.py.
run() { .venv/bin/python -m pytest -rs --telemetry=build/telemetry "$@"; }

[ $# -eq 0 ] || { run "$@"; exit; }
rm -f "$FAILED"
status=0
run || status=$?
[ "$status" -eq 1 ] && [ -f "$FAILED" ] || exit "$status" # 1 is a failed test; a leak and a broken run have other numbers

mapfile -t failed < <(.venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$FAILED")
[ "${#failed[@]}" -le "$FLAKY_MAX" ] || exit "$status"
echo "--- once more, by themselves: ${failed[*]}"
run --junitxml "$AGAIN" "${failed[@]}"
grep -q 'skipped="0"' "$AGAIN" || { echo "skipped is not passed"; exit "$status"; }
printf 'flaky (failed, and passed when run again by itself): %s\n' "${failed[@]}"
