"""Methods and settings against the oracle: the bench, and guda tune."""
