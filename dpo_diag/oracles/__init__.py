"""Oracles of preference: of two answers to a prompt, how likely is the first preferred."""
