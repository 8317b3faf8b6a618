"""`guda tune`: unlearning settings by their agreement with the oracle of a few held-out groups."""
