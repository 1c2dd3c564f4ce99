"""The parts that `python -m scripts.demo` starts."""
