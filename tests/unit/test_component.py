"""A pipeline from YAML: what it may say, and what is on from the beginning."""

import dagster as dg
import pydantic
import pytest

import rlhi_dagster
from rlhi_dagster import definitions, profiles
from rlhi_dagster.component import SCHEDULES


def test_a_schedule_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(pydantic.ValidationError, match="Input should be 'none', 'daily' or 'weekly'"):
        rlhi_dagster.Pipeline.resolve_from_yaml("profile: town\nprefix: mine\nschedule: hourly")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_that_was_asked_for_alone_is_on(schedule: str) -> None:
    made = definitions.build(profiles.load("town"), "mine", SCHEDULES[schedule])
    on = [each.name for each in made.schedules or () if each.default_status is dg.DefaultScheduleStatus.RUNNING]  # type: ignore[union-attr]
    assert on == [f"mine__{name}" for name in SCHEDULES[schedule]]
