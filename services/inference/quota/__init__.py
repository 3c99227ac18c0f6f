"""Quotas: how much each caller may use, reserved before the work and settled by what it really took."""
