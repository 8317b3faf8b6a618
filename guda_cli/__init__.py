"""Which groups of the training data is a generated image owed to?"""
