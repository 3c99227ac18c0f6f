"""Traces without a collector: a bounded store in the edge's memory, fed by OTLP, and what shows it."""
