"""The code of one notebook each; a lesson imports the core only."""
