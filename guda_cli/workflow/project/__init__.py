"""One recipe on one store: what is there, what is missing, what it costs, running a step once."""
