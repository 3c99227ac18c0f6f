#!/usr/bin/env bash
# Writes deploy/lock.txt: what images are made of, each file by its hash, in the versions of constraints.txt. Without
# torch and what it brings, whose build (CPU, CUDA, ROCm) is the builder's choice. Asks the package index.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
{
  .venv/bin/python deploy/requirements.py inference local encoder cache safety edge cli
  .venv/bin/python deploy/requirements.py --own encoder | grep -v '^\.'
  sed -n 's/^requires = \["\(setuptools[^"]*\)"\]$/\1/p' pyproject.toml
} >"$scratch/needed"
# A requirement of torch that no platform has is none.
echo "torch; sys_platform == 'none'" >"$scratch/without"
{
  echo "# What images are made of, by hash. Written by tools/lock.sh (make constraints); do not edit."
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
    --no-emit-package torch --no-annotate --no-header --constraint constraints.txt --override "$scratch/without" "$scratch/needed"
} >"$scratch/lock"
mv "$scratch/lock" deploy/lock.txt
