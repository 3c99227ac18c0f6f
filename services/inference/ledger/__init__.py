"""The ledger: what every request and every attempt used, kept for good."""
