"""The whole suite again, for what operators see of it."""

from tests.flow.conftest import models, suite, upstream, variables

__all__ = ["models", "suite", "upstream", "variables"]
