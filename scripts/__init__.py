"""Commands for operators. Each parses its arguments, calls one function and prints the result.

`python -m scripts.NAME --help` explains a command.
"""
