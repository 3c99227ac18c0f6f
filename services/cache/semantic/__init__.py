"""Answers to similar questions, with a bound on how many of them are wrong."""
