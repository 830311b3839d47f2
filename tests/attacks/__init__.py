"""The attack catalogue: which attacks there are, those that are the same on every transport, and the report."""
