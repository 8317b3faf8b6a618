"""The scores of an image, by any method."""
