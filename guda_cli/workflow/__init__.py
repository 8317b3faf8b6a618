"""Plans and runs: the only bridge between the maths and the store."""
