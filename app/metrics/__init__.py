"""Metrics for Prometheus: `definitions` makes them, requests note `observations`, and `endpoint` serves them."""
