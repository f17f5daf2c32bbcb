"""What holds a task back: `why()` tells it."""

from .monitoring.why import Cause as Cause
from .monitoring.why import Reason as Reason
from .monitoring.why import why as why
