"""What each step's result depends on: keys, and nothing that computes or stores."""
