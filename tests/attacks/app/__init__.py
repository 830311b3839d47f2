"""Attacks on what tools do with their inputs and outputs, on live listeners."""
