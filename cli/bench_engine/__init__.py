"""`millrace bench engine`: the local engine under load, beside its peers and the machine's own limits."""
