"""The OpenAI wire: bodies, answers and the translation between them and the inference contract."""
