"""The engines: sources of tokens behind `services.inference.engine.Engine`."""
