"""Where the tests find the repository's files."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
