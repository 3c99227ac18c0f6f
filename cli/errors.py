"""What a command says when it cannot go on."""

from __future__ import annotations


class CommandError(Exception):
    """The command failed; the message is for the person at the terminal and says what to do next."""
