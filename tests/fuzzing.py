"""How much the tests fuzz: a little, and always the same; more of it, at random, by hand.

`SNAPPEA_FUZZ=30 python -m pytest tests/test_fuzz.py tests/test_fuzz_rows.py -n 0` tries thirty times as many
examples, new ones each time.
"""

import os
import sys
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("SNAPPEA_FUZZ", "1"))
#: SNAPPEA_FUZZ_SHRINKS=no: what fails is shown as it was found, at once. To find a smaller one takes minutes.
PHASES = [Phase.generate] if os.environ.get("SNAPPEA_FUZZ_SHRINKS") == "no" else list(Phase)


def fuzz(examples: int) -> settings:
    """Return what goes before `@given`."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )


#: What is no Unicode but may be in a str, and so come from the command line.
TEXTS = st.text(st.characters())
PLAIN_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | PLAIN_TEXTS
)
#: What JSON can hold, exactly.
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(PLAIN_TEXTS, inner, max_size=5),
    max_leaves=20,
)
#: What people write by mistake, of any kind.
ODD = st.one_of(
    SCALARS,
    st.floats(),
    TEXTS,
    st.binary(max_size=50),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([4290, 4310]).map(lambda digits: 10**digits),  # Python writes the one, but not the other
    st.sampled_from([sys.maxsize, -sys.maxsize - 1, sys.float_info.max, object(), object, ..., print]),
)
ANYTHING = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
        | st.dictionaries(TEXTS | st.integers() | st.none() | st.booleans(), inner, max_size=4)
    ),
    max_leaves=10,
)


def as_arrived(value: Any) -> Any:
    """Turn tuples into lists, as documented."""
    if isinstance(value, (list, tuple)):
        return [as_arrived(item) for item in value]
    if isinstance(value, dict):
        return {key: as_arrived(item) for key, item in value.items()}
    return value
