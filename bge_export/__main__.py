"""`python -m bge_export`."""

from bge_export.cli import main

if __name__ == "__main__":
    main()
