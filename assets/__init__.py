"""Asset definitions, one thin module per stage: wiring, metadata and checks. The method is in ``rlhi_dagster``."""
