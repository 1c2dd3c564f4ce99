"""Backups: one tenant as a bundle, a folder of its rows and the proof that they are all there."""
