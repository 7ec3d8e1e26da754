"""A coverage-guided fuzzer over everything that reads files: `python -m tests.fuzz.run`."""
