"""The four services of Millrace, each a process of its own; none imports another."""
