"""The test kit for applications on this engine: throw-away servers and databases, and a pytest plugin."""
