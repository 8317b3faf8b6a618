"""`python -m guda_cli` is `guda`."""

from guda_cli.app import main

if __name__ == "__main__":
    main()
