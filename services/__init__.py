"""The four services of Millrace; none imports another."""
