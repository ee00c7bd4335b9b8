"""All that is Dagster: how assets are declared, stored, planned, run by workers and put on schedules."""
