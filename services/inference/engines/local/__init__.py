"""The `local` engine: Hugging Face models run in this process, many requests in one batch."""
