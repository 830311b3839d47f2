"""Hostile servers among the servers of a host, live: what a model is shown, what is asked, and what arrives."""
