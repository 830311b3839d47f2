"""One file per parser. Each has:

- `check(data)`: gives one input to the parser and raises whatever is wrong with what came of it;
- `SEEDS`: inputs to begin with, written by hand;
- `WORDS`: pieces that the fuzzer puts into inputs.
"""
