"""Signals to a worker: the first is noted, its echo does nothing, a later second one ends the process."""

from __future__ import annotations

import signal

import pytest

from tests import forked

PROGRAM = """
import signal, sys
from rlhi_dagster.workers import answering

answering.ECHO_SECONDS = float(sys.argv[1])
stop = answering.Stop(print)
assert not stop()
signal.raise_signal(signal.SIGINT)
assert stop()
signal.raise_signal(signal.SIGTERM)
print("goes on", flush=True)
"""


@pytest.mark.parametrize(("echo_seconds", "code"), [(60, 0), (0, -signal.SIGTERM)])
def test_an_echo_of_the_signal_is_none_and_a_second_one_ends_the_process(echo_seconds: int, code: int) -> None:
    done = forked.run(PROGRAM, str(echo_seconds))
    assert done.returncode == code, done.stderr
    assert ("goes on" in done.stdout) == (code == 0)
