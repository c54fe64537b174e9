"""Floor 5: the command line. One file a verb; argument parsing and printing only."""
