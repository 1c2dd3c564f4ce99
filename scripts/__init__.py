"""The operators' door: each script parses, calls one function and tells the result. `python -m scripts.NAME --help`."""
