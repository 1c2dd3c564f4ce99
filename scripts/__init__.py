"""Commands for operators. Each parses its arguments, calls one function and prints the result.

`python -m scripts.NAME --help` explains a command.
"""

import atexit
import gc

# A command's imports make 400,000 objects that all stay. Python looks for garbage after each 700 of them, and again at
# the end, which together took a third of a command that does little.
gc.set_threshold(10_000)
atexit.register(gc.freeze)
