"""From a folder of images to a recipe, and from a recipe to a report in one command."""
