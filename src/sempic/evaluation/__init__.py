"""How much of a picture survives: metrics, other codecs at the same rate, and the report."""
