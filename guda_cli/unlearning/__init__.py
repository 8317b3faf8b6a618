"""Operators that take a group away from a trained model."""
