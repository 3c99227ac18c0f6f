"""Detectors that were taught: one pass of a sentence encoder, and small heads that read what it says."""
