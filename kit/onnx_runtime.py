"""ONNX Runtime, kept from talking: since 1.29 it reports each process and session to its makers unless told not to.

It looks once, while it is loaded, so whoever wants it imports it from here. An environment that says otherwise is left
as it is. Source: https://github.com/microsoft/onnxruntime/pull/27379
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime

__all__ = ["onnxruntime"]
