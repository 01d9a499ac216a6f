"""Looking for faults in a raw data set: `run.check` reads everything once and changes nothing."""
