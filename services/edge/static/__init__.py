"""What browsers load; a package so that wheels carry it."""
