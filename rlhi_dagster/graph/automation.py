"""When preference data is refreshed by itself: once a week, or when log files arrive.

What belongs here: schedules and sensors over the job ``preference_data``; all are stopped until someone starts them. What does not: where
the files lie and which months a file holds (the profile's source says). Each asks for one run over every month of the source, as ``make
demo`` does: models and unpartitioned tables are made from all months, so what rests on them must be made anew in all months too, and what
models have answered is not asked again. A run key is never run twice, so asking again is harmless.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import dagster as dg

from rlhi_dagster.base import failures
from rlhi_dagster.graph.partitions import range_tags

if TYPE_CHECKING:
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


def weekly_preference_data(job: Job, source_months: Callable[[], tuple[str, str]]) -> dg.ScheduleDefinition:
    """A schedule that asks for every month of the source.

    Args:
        job: The one that makes preference pairs.
        source_months: The first and the last month (``YYYY-MM``) that the source has rows of.
    """

    @dg.schedule(
        name="weekly_preference_data",
        job=job,
        cron_schedule="0 3 * * 1",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Mondays 03:00 UTC: preference data of every month of the source, in one run.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=context.scheduled_execution_time.date().isoformat(), tags=range_tags(*source_months()))

    return schedule


def new_log_files(
    job: Job,
    list_files: Callable[[], Iterable[LogFile]],
    months_of: Callable[[str], Iterable[str]],
    months: dg.PartitionsDefinition,
    minimum_interval_seconds: int = 300,
) -> dg.SensorDefinition:
    """A sensor that asks for every month of the source when a file is new or has changed.

    Args:
        job: The one that makes preference pairs.
        list_files: The source's files as they are now. A tick is skipped, with the sentence, if it fails as can be expected.
        months_of: The months (``YYYY-MM``) that a file holds; called for new and changed files only.
        months: The months that there are; a file's months outside them are logged and left out, for no run could make them.
        minimum_interval_seconds: Least time between two looks.
    """

    @dg.sensor(
        name="new_log_files",
        job=job,
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=minimum_interval_seconds,
        description="Preference data of every month of the source, in one run, when a source file is new or has changed.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        before = _read_cursor(context)
        now: dict[str, _Seen] = {}
        touched: set[str] = set()
        try:
            files = sorted(list_files(), key=lambda file: file.name)
        except ValueError as error:
            if (told := failures.sentence(error)) is None:
                raise
            return dg.SkipReason(told)
        for file in files:
            seen = before.get(file.name)
            if seen is None or seen.file != file:
                touched.update(seen.months if seen else ())
                seen = _Seen(file, tuple(sorted(set(months_of(file.name)))))
                touched.update(seen.months)
            now[file.name] = seen
        if now == before:
            return dg.SkipReason("no new or changed log files")
        outside = sorted(month for month in touched if not months.has_partition_key(month))
        if outside:
            context.log.warning(f"log files hold months that are not partitions, left out: {', '.join(outside)}")
        requests = []
        if touched.difference(outside):
            # Months that a changed file no longer holds are made anew too, without its rows.
            held = touched.union(*(seen.months for seen in now.values()))
            wanted = [month for month in held if months.has_partition_key(month)]
            requests.append(dg.RunRequest(run_key=_digest(now.values()), tags=range_tags(min(wanted), max(wanted))))
        cursor = json.dumps({name: seen.written() for name, seen in now.items()})
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return sensor


def _read_cursor(context: dg.SensorEvaluationContext) -> dict[str, _Seen]:
    if not context.cursor:
        return {}
    try:
        return {name: _Seen.read(name, entry) for name, entry in json.loads(context.cursor).items()}
    except (AttributeError, TypeError, ValueError) as error:
        context.log.warning(f"the cursor is unreadable ({type(error).__name__}); every log file counts as new")
        return {}


def _digest(files: Iterable[_Seen]) -> str:
    """Digest of the states of all files, so that a sensor that has lost its cursor asks for the same run again."""
    states = [(seen.file.name, seen.file.size, seen.file.modified_ns) for seen in files]
    return hashlib.sha256(json.dumps(sorted(states)).encode()).hexdigest()[:16]
