"""`millrace backup` and `millrace restore`: all that Millrace keeps, in one folder that any store can take back."""
