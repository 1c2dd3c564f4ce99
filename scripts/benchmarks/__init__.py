"""What `python -m scripts.benchmark` measures, and the throw-away installation it measures on."""
