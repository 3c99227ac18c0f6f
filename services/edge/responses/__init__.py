"""OpenAI's /v1/responses: one answer with its items, at once, streamed, or in the background."""
