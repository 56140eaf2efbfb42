"""Several processes, one a host: how they start, agree, miss one another and stop together."""
