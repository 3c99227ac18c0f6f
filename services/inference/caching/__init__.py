"""Answers that are kept, shared while they are made, replayed and refreshed."""
