"""Floor 4: the HTTP face and the score files, on the champions of the registry. Never imports `training`; alone imports `bentoml`."""
