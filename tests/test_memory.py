"""Amounts of memory."""

import pytest

from snappea.memory import parse_size


@pytest.mark.parametrize(
    ("written", "size"),
    [(1, 1), (512, 512), ("512", 512), ("1K", 1024), ("512M", 2**29), ("1.5G", 3 * 2**29), ("64 kb", 65536)],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", [0, -1, True, 1.5, None, "", "0", "M", "-1M", "1T", "1e3", "80%", [1]])
def test_what_is_no_size(written: object) -> None:
    assert parse_size(written) is None
