"""Who asks: told from a request's headers before anything else is looked at, and held against what is asked for."""
