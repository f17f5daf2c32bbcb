"""Amounts of memory."""

import os
from pathlib import Path

import pytest

from snappea.conf import parse_size
from snappea.memory import available, limit_in_bytes, resident


@pytest.mark.parametrize(
    ("written", "size"),
    [(1, 1), (512, 512), ("512", 512), ("1K", 1024), ("512M", 2**29), ("1.5G", 3 * 2**29), ("64 kb", 65536)],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", [0, -1, True, 1.5, None, "", "0", "M", "-1M", "1T", "1e3", "80%", [1]])
def test_what_is_no_size(written: object) -> None:
    assert parse_size(written) is None


def tree(root: Path, cgroup: str, **limits: str) -> str:
    """Make up a tree of control groups; `limits` by path, with a double underscore for each slash."""
    for path, text in {"proc__self__cgroup": cgroup, **limits}.items():
        file = root.joinpath(*path.split("__"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(file.name.replace("_max", ".max").replace("memory_limit", "memory.limit")).write_text(
            text
        )
    return str(root)


def test_the_machine_is_the_limit_where_nothing_else_is(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available(str(tmp_path)) == machine
    unlimited = tree(tmp_path, "0::/a\n", sys__fs__cgroup__a__memory_max="max\n")
    assert available(unlimited) == machine


def test_the_least_of_a_group_and_those_around_it(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "0::/outer/middle/inner\n",
        sys__fs__cgroup__outer__memory_max="6000000\n",
        sys__fs__cgroup__outer__middle__memory_max="5000000\n",
        sys__fs__cgroup__outer__middle__inner__memory_max="max\n",
        sys__fs__cgroup__other__memory_max="7\n",
    )
    assert available(root) == 5_000_000
    assert limit_in_bytes("80%", root) == 4_000_000
    assert limit_in_bytes("1K", root) == 1024 and limit_in_bytes(7, root) == 7
    assert limit_in_bytes(None, root) is None


@pytest.mark.parametrize("path", ["/", "/../../elsewhere", "/docker/what-only-the-host-knows"])
def test_a_container_that_sees_its_own_group_as_the_mount(tmp_path: Path, path: str) -> None:
    new = tree(tmp_path / "v2", f"0::{path}\n", sys__fs__cgroup__memory_max="3000000\n")
    assert available(new) == 3_000_000
    old = tree(
        tmp_path / "v1",
        f"4:memory,hugetlb:{path}\n1:cpu:/\n0::/\n",
        sys__fs__cgroup__memory__memory_limit_in_bytes="2000000\n",
        sys__fs__cgroup__unified__nothing="",
    )
    assert available(old) == 2_000_000


def test_what_this_process_has() -> None:
    before = resident()
    assert before > 10 * 1024 * 1024
    held = b"x" * 50 * 1024 * 1024
    assert resident() - before > 40 * 1024 * 1024
    del held
