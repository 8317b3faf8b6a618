"""One file an operator, and what they share."""
