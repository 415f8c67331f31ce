"""``python -m eosfm``."""

from eosfm.cli import main

if __name__ == "__main__":
    main()
