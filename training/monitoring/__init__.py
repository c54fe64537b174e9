"""Whether a model that serves is still right: drift, calibration on outcomes that have arrived, and freshness."""
