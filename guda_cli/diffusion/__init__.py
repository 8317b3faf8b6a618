"""Forward process, ELBO terms, common random numbers, denoisers."""
