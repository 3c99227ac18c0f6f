"""Detectors whose judgement is made by somebody's model: in this process, or behind an endpoint."""
