"""The recipes that come with guda."""
