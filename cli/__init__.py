"""The `millrace` command: starts the suite, chats with it, shows its models and its settings."""
