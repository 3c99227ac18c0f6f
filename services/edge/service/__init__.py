"""The suite's own endpoints: plain chat, text tasks, batches, health and figures, over the same RPCs."""
