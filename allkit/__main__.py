"""`python -m allkit` is the command `allkit`."""

from allkit.cli import main

if __name__ == "__main__":
    main()
