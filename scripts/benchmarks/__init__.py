"""The benchmarks of `python -m scripts.benchmark`, and the throw-away installation that they run on."""
