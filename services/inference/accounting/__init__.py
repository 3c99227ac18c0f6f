"""What a request used and what it costs: metered, reserved, settled, told."""
