"""What the bench asks of the machine."""

import time

import psutil

from bench.machine import cpu_s


def test_cpu_is_counted_by_the_clock_of_the_process() -> None:
    before = time.process_time()
    counted = cpu_s([psutil.Process()])
    assert before <= counted <= time.process_time()
    assert cpu_s([psutil.Process(), psutil.Process()]) >= 2 * counted
