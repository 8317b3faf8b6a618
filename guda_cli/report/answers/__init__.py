"""Images and the groups they are owed to, for terminal, page and scripts."""
