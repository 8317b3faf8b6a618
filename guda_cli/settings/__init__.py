"""The recipe as a file: what it may say, reading it, finding it."""
