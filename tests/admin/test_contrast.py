"""The console's own colors: text can be read on its background (WCAG AA), light and dark."""

import re

import pytest

from tests.site import ROOT

CSS = (ROOT / "snappea" / "static" / "snappea" / "console.css").read_text()
#: Django's backgrounds, where the console's would not be used: --body-bg and --darkened-bg.
DJANGO = {"django": ("#ffffff", "#121212"), "django2": ("#f8f8f8", "#212121")}
#: A color of text, and the backgrounds that it stands on.
PAIRS = [
    *((text, ground) for text in ("quiet", "bad", "ok", "warn") for ground in ("bg", "bg2", *DJANGO)),
    *((text, f"{text}-bg") for text in ("bad", "ok", "warn")),
    ("on-accent", "accent"),
]
#: How much brighter one of them must be.
AA = 4.5


def color(name: str, scheme: int) -> str:
    """Return a color as "#rrggbb". `scheme`: 0 for light, 1 for dark."""
    if name in DJANGO:
        return DJANGO[name][scheme]
    found = re.search(rf"--sp-{name}: (?:var\([^,]*, )?light-dark\((#\w{{6}}), (#\w{{6}})\)", CSS)
    assert found, name
    return found[scheme + 1]


def luminance(shade: str) -> float:
    shares = [int(shade[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        share / 12.92 if share <= 0.03928 else float(((share + 0.055) / 1.055) ** 2.4) for share in shares
    ]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_can_be_read(text: str, ground: str, scheme: int) -> None:
    darker, brighter = sorted(luminance(color(name, scheme)) for name in (text, ground))
    assert (brighter + 0.05) / (darker + 0.05) >= AA
