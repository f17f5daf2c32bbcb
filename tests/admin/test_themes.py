"""The console in Django's admin and in two themes that replace its templates, in a real browser."""

from pathlib import Path

import pytest

from tests.admin.chromium import Browser, chromium
from tests.admin.gallery import THEMES, Look, pages, put_on, shop

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.needs("chromedriver"), pytest.mark.long]

#: What lies beyond the left or the right side of the window, by its class.
BEYOND = """
    const width = document.documentElement.clientWidth;
    const isScroller = (node) => getComputedStyle(node).overflowX !== "visible";
    const clips = (node) => node && (isScroller(node) || clips(node.parentElement));
    const isHidden = (node) => node.closest(".sp-hidden, .sp-skip") || clips(node.parentElement);
    return [...document.querySelectorAll(".sp *")].filter((node) => {
        const { left, right, width: own } = node.getBoundingClientRect();
        return own && (right > width + 1 || left < -1) && !isHidden(node);
    }).map((node) => `${node.nodeName}.${node.getAttribute("class")}`);
"""
#: What no theme may change.
STYLE = """
    const style = getComputedStyle(document.querySelector(".sp-tabs a"));
    return [style.fontSize, style.padding];
"""


#: Where the pages of a theme are looked at: all pages in Django's own, which has most of the looks.
LOOKS = {
    "django": (Look(), Look(768, language="de"), Look(390, language="ar")),
    "unfold": (Look(), Look(390, language="ar")),
    "jazzmin": (Look(), Look(390)),  # its own frame is too wide from the right to the left
}
SOME = "overview", "tasks", "task", "schedules"


@pytest.mark.parametrize("theme", THEMES)
def test_each_page_fits_its_window(theme: str, tmp_path: Path) -> None:
    """Nothing lies beyond the window, and the console's style is its own."""
    styles = set()
    with chromium() as driver, shop(tmp_path, theme) as here:
        browser = Browser(here.address, driver)
        browser.log_in()
        addresses = pages(here)
        del addresses["index"]
        for look in LOOKS[theme]:
            put_on(browser, look)
            for name in addresses if theme == "django" else SOME:
                browser.open(addresses[name])
                assert driver.execute_script(BEYOND) == [], (name, look)
                styles.add(tuple(driver.execute_script(STYLE)))
    assert len(styles) == 1, styles
