"""Methods that look at training images instead of removing a group."""
