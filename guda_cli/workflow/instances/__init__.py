"""The rival methods: scores of single training images (or none), on the store."""
