"""The `process_...` metrics of each worker: CPU time, memory and file descriptors.

prometheus_client has a collector for them, but no collector works with several processes.
"""

from time import process_time

from prometheus_client import PROCESS_COLLECTOR, Counter, Gauge

from .metrics import REGISTRY

CPU_SECONDS = Counter(
    "process_cpu_seconds", "User and system CPU time of all workers.", registry=REGISTRY
)
GAUGES = {
    name: Gauge(name, documentation, multiprocess_mode="liveall", registry=REGISTRY)
    for name, documentation in (
        ("process_resident_memory_bytes", "Resident memory of a worker."),
        ("process_virtual_memory_bytes", "Virtual memory of a worker."),
        ("process_open_fds", "Open file descriptors of a worker."),
        ("process_max_fds", "File descriptors that a worker may open."),
        ("process_start_time_seconds", "Start of a worker, in seconds since the epoch."),
    )
}


class ProcessSampler:
    """Writes the metrics of this process, as far as the operating system has /proc.

    The CPU time is a counter, which a worker continues where the worker before it ended. As a gauge
    of each worker it would fall, and the rate over all workers would be wrong.
    """

    def __init__(self) -> None:
        self._counted_cpu_seconds = 0.0

    def __call__(self) -> None:
        """Write the metrics of this process."""
        cpu_seconds = process_time()
        CPU_SECONDS.inc(cpu_seconds - self._counted_cpu_seconds)
        self._counted_cpu_seconds = cpu_seconds
        for metric in PROCESS_COLLECTOR.collect():
            if metric.name in GAUGES:
                GAUGES[metric.name].set(metric.samples[0].value)


sample_process = ProcessSampler()
