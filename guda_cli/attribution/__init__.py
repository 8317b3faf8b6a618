"""From ELBO terms to scores of groups."""
