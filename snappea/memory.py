"""Amounts of memory, as people write them."""

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def parse_size(written: object) -> int | None:
    """Return how many bytes 1048576, "512M" or "1.5G" are, None if it is nothing of the kind."""
    if isinstance(written, int) and not isinstance(written, bool):
        return written if written > 0 else None
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    return int(float(found[1]) * _UNITS[found[2].upper()]) or None if found else None
