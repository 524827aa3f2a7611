"""Similarities of an answer to a reference answer."""
