"""Checks of preference data before training: one file, one question."""
