"""The command line, the top layer: one file per verb, argument parsing and printing only."""
