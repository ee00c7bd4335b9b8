"""How diverse the requests are, beside other corpora."""
