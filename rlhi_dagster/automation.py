"""When preference data is refreshed by itself: once a week, or when log files arrive.

What belongs here: schedules and sensors over the job ``preference_data``; all are stopped until someone starts them. What does not: where
the files lie and which months a file holds (the profile's source says). Months are asked for one run each; a run key is never run
twice, so asking again is harmless.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import dagster as dg

from rlhi_dagster.jobs import preference_data
from rlhi_dagster.partitions import months_between


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


@dg.schedule(
    job=preference_data,
    cron_schedule="0 3 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Mondays 03:00 UTC: preference data of the month or months that the seven days before touch.",
)
def weekly_preference_data(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """Ask for the months of the seven days before the tick."""
    today = context.scheduled_execution_time.date()
    first, last = today - timedelta(days=7), today - timedelta(days=1)
    year, week, _ = last.isocalendar()
    for month in months_between(first, last):
        yield dg.RunRequest(run_key=f"{year}-W{week:02d}:{month}", partition_key=month)


def new_log_files(
    list_files: Callable[[], Iterable[LogFile]],
    months_of: Callable[[str], Iterable[str]],
    months: dg.PartitionsDefinition,
    minimum_interval_seconds: int = 300,
) -> dg.SensorDefinition:
    """A sensor that asks for the months of new and changed files.

    Args:
        list_files: The source's files as they are now.
        months_of: The months (``YYYY-MM``) that a file holds; called for new and changed files only.
        months: The months that there are; a file's months outside them are logged and left out, for no run could make them.
        minimum_interval_seconds: Least time between two looks.
    """

    @dg.sensor(
        name="new_log_files",
        job=preference_data,
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=minimum_interval_seconds,
        description="Preference data of every month that a new or changed source file holds.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        before = _read_cursor(context)
        now: dict[str, _Seen] = {}
        touched: set[str] = set()
        for file in sorted(list_files(), key=lambda file: file.name):
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
        wanted = sorted(touched.difference(outside))
        requests = [dg.RunRequest(run_key=f"{month}:{_digest(month, now)}", partition_key=month) for month in wanted]
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


def _digest(month: str, files: Mapping[str, _Seen]) -> str:
    """Digest of the states of all files of a month, so that a sensor that has lost its cursor asks for the same run again."""
    states = [(seen.file.name, seen.file.size, seen.file.modified_ns) for seen in files.values() if month in seen.months]
    return hashlib.sha256(json.dumps(sorted(states)).encode()).hexdigest()[:16]
