"""`python -m helianthus`: the same as the command `helianthus`."""

from .cli import main

if __name__ == "__main__":
    main()
