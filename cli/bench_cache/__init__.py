"""`millrace bench cache`: how much a cache answers and how much of that is wrong, measured over the wire."""
