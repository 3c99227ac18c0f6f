"""Judges texts on their way to and from a model."""
