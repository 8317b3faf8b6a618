"""Methods against the oracle, for terminal, page and scripts."""
