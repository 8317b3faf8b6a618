"""The content of the reports, read from the store."""
