"""Runs the inference service: `python -m services.inference`."""

from __future__ import annotations

from kit.serve import main
from services.inference.config import InferenceSettings
from services.inference.wiring import build

if __name__ == "__main__":
    main("inference", InferenceSettings, build)
