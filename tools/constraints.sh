#!/usr/bin/env bash
# Prints constraints.txt: the versions installed in .venv, without the project itself and without torch, whose build
# (CPU, CUDA, ROCm) is the user's choice.
set -euo pipefail
cd "$(dirname "$0")/.."
sed -n '/^#/p' constraints.txt
.venv/bin/python -m pip freeze --exclude-editable | grep -v -i -E '^(torch|triton|nvidia-.*|cuda-.*)==| @ '
