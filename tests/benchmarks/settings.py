"""The Django settings of a process that is measured: those of its system, for its directory."""

import os
from pathlib import Path

from .systems import SYSTEMS

globals().update(
    SYSTEMS[os.environ["BENCHMARK_SYSTEM"]].django_settings(Path(os.environ["BENCHMARK_DIRECTORY"]))
)
