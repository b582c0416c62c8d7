"""`python -m moonpool` is `moonpool`."""

from moonpool.cli.main import main

if __name__ == "__main__":
    main()
