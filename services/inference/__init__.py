"""The front door of generation: pipeline, routing, engines, admission."""
