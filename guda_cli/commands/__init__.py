"""One module a command: parse, call the workflow, render."""
