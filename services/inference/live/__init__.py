"""What an operator watches: how this process fares just now."""
