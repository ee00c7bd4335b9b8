"""What happens by itself: preference data anew, a look at the source, cheap tables again, training once there are enough new pairs.

What belongs here: schedules and sensors over the jobs, which are stopped until someone starts them, and the sensor that tells Dagster of
new months, which launches nothing and runs by itself. What does not: where the files lie and which months a file holds (the profile's
source says), and which assets are cheap (``graph/declare.py``).

Each request for preference data is one run over every month of the source, as ``make demo`` does: models and unpartitioned tables are made
from all months, so what rests on them must be made anew in all months too, and what models have answered is not asked again. A run key is
never run twice, so asking again is harmless.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import dagster as dg

from rlhi_dagster.base import failures
from rlhi_dagster.graph.partitions import add_months, range_tags

if TYPE_CHECKING:
    from rlhi_dagster.graph.declare import Place
    from rlhi_dagster.graph.jobs import Job


@dataclass(frozen=True, slots=True)
class LogFile:
    """A source file as it is now.

    Attributes:
        name: Path or URL.
        size: Bytes.
        modified_ns: Time of the last change, in nanoseconds.
    """

    name: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was when it was last looked at, and the months it held."""

    file: LogFile
    months: tuple[str, ...]

    @classmethod
    def read(cls, name: str, entry: Any) -> Self:
        """Read one entry of the cursor."""
        size, modified_ns, months = entry
        if not all(isinstance(month, str) for month in months):
            raise TypeError("months must be strings")
        return cls(LogFile(name, int(size), int(modified_ns)), tuple(months))

    def written(self) -> list[Any]:
        """The entry for the cursor."""
        return [self.file.size, self.file.modified_ns, list(self.months)]


def weekly_preference_data(place: Place, job: Job, find_months: Callable[[], Sequence[str]]) -> dg.ScheduleDefinition:
    """A schedule that asks for preference data of every month of the source; see `_every_month`."""
    description = "Mondays 03:00 UTC: preference data (personas, pairs, the report) of every month of the source, in one run."
    return _every_month(place, "weekly_preference_data", job, "0 3 * * 1", find_months, description)


def daily_logs(place: Place, job: Job, find_months: Callable[[], Sequence[str]]) -> dg.ScheduleDefinition:
    """A schedule that asks for labels and analytics of every month of the source; see `_every_month`."""
    description = "Every day 02:00 UTC: conversations, labels and analytics of every month of the source, in one run."
    return _every_month(place, "daily_logs", job, "0 2 * * *", find_months, description)


def daily_observation(place: Place, job: Job) -> dg.ScheduleDefinition:
    """A schedule that looks at the sources' files, so that the UI says what was made of others."""
    return dg.ScheduleDefinition(
        name=place.named("daily_observation"),
        job=job,
        cron_schedule="0 1 * * *",
        execution_timezone="UTC",
        default_status=_status(place, "daily_observation"),
        description="Every day 01:00 UTC: the version of the sources' files, which marks what was made of other files. Makes nothing.",
    )


def _every_month(
    place: Place, name: str, job: Job, cron: str, find_months: Callable[[], Sequence[str]], description: str
) -> dg.ScheduleDefinition:
    """A schedule over every month of the source.

    Args:
        place: Whose months; those that the instance lacks are added.
        name: Of the schedule.
        job: What it runs.
        cron: When, in UTC.
        find_months: The months (``YYYY-MM``) that the source has rows of, in order.
        description: For the UI.
    """

    @dg.schedule(
        name=place.named(name),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=_status(place, name),
        description=description,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            found = find_months()
        except ValueError as error:
            return _skipped(error)
        add_months(context.instance, place.months, found)
        return dg.RunRequest(run_key=context.scheduled_execution_time.date().isoformat(), tags=range_tags(found[0], found[-1]))

    return schedule


def _status(place: Place, name: str) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if name in place.started else dg.DefaultScheduleStatus.STOPPED


def enough_new_pairs(place: Place, job: Job, kept_pairs: Callable[[], int | None], recipes: Sequence[str]) -> dg.SensorDefinition:
    """A sensor that asks for training once there are a tenth more pairs than when it last asked, or than when it was started.

    Args:
        place: For whom.
        job: The one that trains.
        kept_pairs: How many pairs recipes may train on; ``None`` before there are any.
        recipes: Every recipe, in order.
    """

    @dg.sensor(
        name=place.named("enough_new_pairs"),
        job=job,
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=600,
        description="All recipes, in one run, once there are a tenth more pairs to train on than at the last request.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = kept_pairs()
        if not now:
            return dg.SkipReason("there are no pairs to train on yet")
        cursor = context.cursor or ""
        before = int(cursor) if cursor.isdigit() else None
        if before is None:
            context.update_cursor(str(now))
            return dg.SkipReason(f"from now on {_wanted(now):,} pairs are enough; there are {now:,}")
        if now < _wanted(before):
            return dg.SkipReason(f"{_wanted(before):,} pairs are enough; there are {now:,}")
        request = dg.RunRequest(run_key=f"{before}-{now}", tags=range_tags(recipes[0], recipes[-1]))
        return dg.SensorResult(run_requests=[request], cursor=str(now))

    return sensor


def _wanted(before: int) -> int:
    return before + math.ceil(before / 10)


def cheap_assets(place: Place, keys: Sequence[dg.AssetKey]) -> dg.AutomationConditionSensorDefinition:
    """The sensor that makes cheap assets again when what they rest on is new; see ``declare.WHEN_UPSTREAM_IS_SOUND``."""
    return dg.AutomationConditionSensorDefinition(
        name=place.named("cheap_assets"),
        target=dg.AssetSelection.assets(*keys),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tables that need no model are made again when a table before them is new and its blocking checks have passed.",
    )


def source_months(
    place: Place, list_files: Callable[[], Iterable[LogFile]], find_months: Callable[[], Sequence[str]]
) -> dg.SensorDefinition:
    """A sensor that adds the source's months as partitions; it launches nothing, so it runs by itself.

    Args:
        place: Whose months.
        list_files: The source's files as they are now; none where they lie on a hub. A tick is skipped, with the sentence, if it fails as
            can be expected.
        find_months: The months (``YYYY-MM``) that the source has rows of; the source is only read when a file is new or has changed.
    """

    @dg.sensor(
        name=place.named("source_months"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description="Months that the source has rows of become partitions, when a source file is new or has changed. Launches no run.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            found = [*list_files()]
            files = _digest(found)
            if not found:
                return dg.SkipReason("the source's files lie on a hub, which is read when it is asked for: rlhi months adds their months")
            if context.cursor == files and place.months.get_partition_keys(dynamic_partitions_store=context.instance):
                return dg.SkipReason("no new or changed source files")
            added = add_months(context.instance, place.months, find_months())
        except ValueError as error:
            return _skipped(error)
        context.log.info(f"new months: {', '.join(added) or 'none'}")
        return dg.SensorResult(cursor=files)

    return sensor


def new_log_files(
    place: Place, job: Job, list_files: Callable[[], Iterable[LogFile]], months_of: Callable[[str], Iterable[str]]
) -> dg.SensorDefinition:
    """A sensor that asks for every month of the source when a file is new or has changed.

    Args:
        place: Whose months; those that the instance lacks are added. A file's months before the profile's ``first_month`` are logged and
            left out.
        job: The one that makes preference pairs.
        list_files: The source's files as they are now. A tick is skipped, with the sentence, if it fails as can be expected.
        months_of: The months (``YYYY-MM``) that a file holds; called for new and changed files only.
    """
    first_month = place.profile.first_month

    @dg.sensor(
        name=place.named("new_log_files"),
        job=job,
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=300,
        description="Preference data of every month of the source, in one run, when a source file is new or has changed.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        before = _Cursor.read(context)
        now: dict[str, _Seen] = {}
        touched: set[str] = set()
        try:
            files = sorted(list_files(), key=lambda file: file.name)
        except ValueError as error:
            return _skipped(error)
        for file in files:
            seen = before.files.get(file.name)
            if seen is None or seen.file != file:
                touched.update(seen.months if seen else ())
                seen = _Seen(file, tuple(sorted(set(months_of(file.name)))))
                touched.update(seen.months)
            now[file.name] = seen
        if now == before.files:
            return dg.SkipReason("no new or changed log files")
        outside = sorted(month for month in touched if month < first_month)
        if outside:
            context.log.warning(f"log files hold months before {first_month}, the profile's first_month, left out: {', '.join(outside)}")
        asked, requests = before.asked, []
        if touched.difference(outside):
            # Months that a changed file no longer holds are made anew too, without its rows.
            held = touched.union(*(seen.months for seen in now.values()))
            wanted = sorted(month for month in held if month >= first_month)
            add_months(context.instance, place.months, wanted)
            asked = _digest((seen.file for seen in now.values()), before.asked)
            requests.append(dg.RunRequest(run_key=asked, tags=range_tags(wanted[0], wanted[-1])))
        return dg.SensorResult(run_requests=requests, cursor=_Cursor(now, asked).written())

    return sensor


@dataclass(frozen=True, slots=True)
class _Cursor:
    """What the sensor knows from its last look.

    Attributes:
        files: The files, by name.
        asked: Run key of the last request; the next one is made of it, so that a file that is put back is a new request.
    """

    files: dict[str, _Seen]
    asked: str

    @classmethod
    def read(cls, context: dg.SensorEvaluationContext) -> Self:
        """The last cursor; one that cannot be read counts as none."""
        if not context.cursor:
            return cls({}, "")
        try:
            written = json.loads(context.cursor)
            return cls({name: _Seen.read(name, entry) for name, entry in written["files"].items()}, str(written["asked"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            context.log.warning(f"the cursor is unreadable ({type(error).__name__}); every log file counts as new")
            return cls({}, "")

    def written(self) -> str:
        """The cursor as text."""
        return json.dumps({"files": {name: seen.written() for name, seen in self.files.items()}, "asked": self.asked})


def _skipped(error: ValueError) -> dg.SkipReason:
    """The sentence of an error that can be expected, as the reason for no run; others are raised."""
    if (told := failures.sentence(error)) is None:
        raise error
    return dg.SkipReason(told)


def _digest(files: Iterable[LogFile], asked: str = "") -> str:
    """Digest of the states of all files and of the request before, so that a sensor that lost its cursor asks for the first run again."""
    states = sorted((file.name, file.size, file.modified_ns) for file in files)
    return hashlib.sha256(json.dumps([asked, states] if asked else states).encode()).hexdigest()[:16]
