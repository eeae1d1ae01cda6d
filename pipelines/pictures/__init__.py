"""Bytes to a checked picture, its crops and their LR."""
