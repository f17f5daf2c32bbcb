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
#: Text that cannot be read on what is painted behind it: its contrast is below 4.5, or 3 if large (WCAG AA).
FAINT = """
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const paint = (colors) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const bright = (rgb) => rgb.map((part) => part / 255)
        .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (node) => node
        ? [...behind(node.parentElement), getComputedStyle(node).backgroundColor] : ["white"];
    const faint = new Set();
    const texts = document.createTreeWalker(document.querySelector(".sp"), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !node.checkVisibility() || node.closest(".sp-hidden")) continue;
        const style = getComputedStyle(node);
        const color = node instanceof SVGElement ? style.fill : style.color;
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const grounds = behind(node);
        const shades = [grounds, [...grounds, color]].map(paint).map(bright);
        const [dark, light] = shades.sort((a, b) => a - b);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < (isLarge ? 3 : 4.5)) {
            const what = `${node.nodeName}.${node.getAttribute("class")}`;
            faint.add(`${what} ${contrast.toFixed(2)}: ${node.textContent.trim().slice(0, 30)}`);
        }
    }
    return [...faint];
"""
#: What no theme may change.
STYLE = """
    const style = getComputedStyle(document.querySelector(".sp-search input"));
    return [style.fontSize, style.padding];
"""


#: Where the pages of a theme are looked at: all pages in Django's own, which has most of the looks.
LOOKS = {
    "django": (Look(), Look(scheme="dark"), Look(768, language="de"), Look(390, language="ar")),
    "unfold": (Look(), Look(scheme="dark"), Look(390, language="ar")),
    "jazzmin": (
        Look(),
        Look(scheme="dark"),
        Look(390),
    ),  # its own frame is too wide from the right to the left
}
SOME = "overview", "tasks", "task", "schedules"


@pytest.mark.parametrize("theme", THEMES)
def test_each_page_fits_its_window(theme: str, tmp_path: Path) -> None:
    """Nothing lies beyond the window, all text can be read, and the console's style is its own."""
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
                assert driver.execute_script(FAINT) == [], (name, look)
                styles.add(tuple(driver.execute_script(STYLE)))
    assert len(styles) == 1, styles
