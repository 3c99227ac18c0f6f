"""Asking targets until one answers: deadlines, breakers, queues, hedges, retries."""
