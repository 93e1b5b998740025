"""Trains privacy-preserving encoders and attacks encoders: see `tfadv.cli`."""

import sys

from tfadv.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
