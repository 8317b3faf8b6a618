"""The bench: every method's scores of the same images, judged by the oracle."""
