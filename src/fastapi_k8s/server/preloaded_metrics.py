"""Values of metrics that are created with the application, before the workers are forked."""

from typing import Any

from prometheus_client import values

_preloaded_values: list["PreloadedValue"] = []


class PreloadedValue(values.MutexValue):
    """A value in memory, which each worker replaces by a value in its metrics file.

    prometheus_client creates the value of a metric without labels together with the metric. With
    `preload_app` that happens in the master, which has no metrics file. Without this class such a
    metric would be missing in /metrics.
    """

    def __init__(self, *parameters: Any, **options: Any) -> None:
        super().__init__(*parameters, **options)  # type: ignore[no-untyped-call]
        self._parameters = parameters
        self._options = options
        self._timestamp: float | None = None
        _preloaded_values.append(self)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value, and its time, which gauges of the mode `mostrecent` need."""
        super().set(value)  # type: ignore[no-untyped-call]
        self._timestamp = timestamp

    def move_to_file(self) -> None:
        """Read and write the value in the metrics file of this process from now on.

        A gauge that was set at import keeps its value, such as 1 for the version of the release.
        A counter starts with the value in the file, without the increments at import: each worker
        would add them again.
        """
        in_file = values.ValueClass(*self._parameters, **self._options)
        metric_type = self._parameters[0]
        value = self.get()  # type: ignore[no-untyped-call]
        if metric_type == "gauge" and value != 0:
            in_file.set(value, self._timestamp)
        # These hide the methods of the class, which saves a call for each increment.
        self.__dict__.update(inc=in_file.inc, set=in_file.set, get=in_file.get)


def move_values_to_files(slot: int) -> None:
    """Keep the values of all metrics in the files of a worker, which are named after its slot."""
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
    for value in _preloaded_values:
        value.move_to_file()
