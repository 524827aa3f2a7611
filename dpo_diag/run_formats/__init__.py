"""Readers of training run folders, one file per trainer."""
