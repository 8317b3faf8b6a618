"""Kinds of models: each in one place, from its files and configuration to its prediction."""
