"""`guda view`: pages from a local server, and a process with the models loaded that serves `guda score`."""
