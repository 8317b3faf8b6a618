"""`python -m guda_cli` is `guda`."""

from guda_cli.start import main

if __name__ == "__main__":
    main()
