"""Commands for operators. Each parses its arguments, calls one function and prints the result.

`python -m scripts.NAME --help` explains a command.
"""

import gc

# A command's imports make 400,000 objects that all stay. Python looks for garbage after each 700 of them, in a sixth of
# the time that a command needs to start.
gc.set_threshold(10_000)
