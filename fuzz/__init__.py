"""Coverage-guided fuzzers of the parsers: `python -m fuzz`. See README.md."""
