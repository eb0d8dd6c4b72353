"""Tests of my habits, for the gate."""

import tempfile
import unittest
from pathlib import Path

import habits


class Habits(unittest.TestCase):
    def test_they_get_along_with_a_state_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            habits.before_start(Path(folder))


if __name__ == "__main__":
    unittest.main()
