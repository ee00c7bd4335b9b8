"""The ground floor: tables, the lake, digests, intervals, failures, plots; imports nothing of the other packages."""
