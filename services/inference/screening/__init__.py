"""What safety says of a prompt and of an answer, and what leaves because of it."""
