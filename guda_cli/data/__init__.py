"""Training images, their groups, and query images. NumPy only; no torch."""
