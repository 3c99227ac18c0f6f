"""What every service shares: serving, dialling, configuration, errors, identity and telemetry.

The kit knows nothing of models, caches or policies; services build on it and it never imports them.
"""
