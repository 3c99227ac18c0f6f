"""The database of inference: one engine by one URL for the ledger, keys and jobs."""
