"""``python -m predictor`` runs the commands without an installation."""

import sys

from predictor.cli import main

if __name__ == "__main__":
    sys.exit(main())
