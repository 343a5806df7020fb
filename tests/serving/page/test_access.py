"""The page for everyone: with a keyboard, with a screen reader, on a phone, in the dark."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

UNNAMED = """() => {
    const shown = (element) => element.checkVisibility();
    const named = (element) => element.getAttribute("aria-label") || element.textContent.trim();
    const labelled = (field) => field.getAttribute("aria-label") || [...field.labels].some(named);
    const parts = [
        ...[...document.querySelectorAll("button, a, summary")].filter(shown).filter((part) => !named(part)),
        ...[...document.querySelectorAll("input, select")].filter(shown).filter((part) => !labelled(part)),
        ...[...document.querySelectorAll("img")].filter(shown).filter((part) => !part.alt),
        ...[...document.querySelectorAll("progress, dialog, section[aria-labelledby]")].filter(
            (part) => !named(part) && !document.getElementById(part.getAttribute("aria-labelledby"))),
    ];
    const ids = [...document.querySelectorAll("[id]")].map((part) => part.id);
    const twice = ids.filter((id, index) => ids.indexOf(id) !== index);
    return [...parts.map((part) => part.outerHTML), ...twice];
}"""
CONTRASTS = """() => {
    const parsed = (color) => {
        const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
        return {rgb: [r, g, b], a};
    };
    const luminance = (rgb) => {
        const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb.map((v) => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let part = element; part; part = part.parentElement) {
            const {rgb, a} = parsed(getComputedStyle(part).backgroundColor);
            if (a === 1) return rgb;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const {parentElement: element, textContent} = walker.currentNode;
        if (!textContent.trim() || !element.checkVisibility()) continue;
        if (element.closest("option, .unseen, .skip")) continue;
        const [light, dark] = [parsed(getComputedStyle(element).color).rgb, behind(element)].map(luminance)
            .sort((a, b) => b - a);
        found.push([textContent.trim(), (light + 0.05) / (dark + 0.05)]);
    }
    return found;
}"""
BOXES = """() => [...document.querySelectorAll("button, select, .frame, .bars")]
    .filter((part) => part.checkVisibility())
    .map((part) => {
        const {left, right, height} = part.getBoundingClientRect();
        return {left, right, height, what: part.localName};
    })"""
FOCUS = """() => {
    const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
    return {style: outlineStyle, width: parseFloat(outlineWidth)};
}"""


def fill(page, image):
    """Show what there can be: an answer of two networks, an error, and one that can be tried again."""
    page.route("**/v1/predict", lambda route: route.abort())
    page.set_input_files("#files", [image("violet", "a_name_without_any_gap_" * 6 + ".png")])
    expect(page.locator(".retry:visible")).to_have_count(1)
    page.unroute("**/v1/predict")
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"}
    page.set_input_files("#files", [image("amber"), image("teal"), text])
    page.get_by_label("Compare with").select_option("wrong")
    expect(page.locator("#progress")).to_be_hidden()


def test_a_phone_never_scrolls_sideways(open_page, image):
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    expect(page.locator("#intake")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    fill(page, image)
    expect(page.locator(".card")).to_have_count(4)
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        boxes = page.evaluate(BOXES)
        assert len(boxes) > 10
        assert [box for box in boxes if box["left"] < 0 or box["right"] > width] == []
        assert [box for box in boxes if box["what"] == "button" and box["height"] < 32] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_everything_has_a_name(open_page, image, scheme):
    page = open_page(color_scheme=scheme)
    fill(page, image)
    contrasts = page.evaluate(CONTRASTS)
    assert {"They differ", "They agree", "Choose images", "notes.txt"} <= {text for text, _ in contrasts}
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
    assert page.evaluate(UNNAMED) == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    is_dark = page.evaluate(
        "parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) < 100"
    )
    assert is_dark == (scheme == "dark")


def test_a_keyboard_is_enough(page, image):
    def press(key, times=1):
        for _ in range(times):
            page.keyboard.press(key)

    def go_to(name):
        for _ in range(30):
            press("Tab")
            focus = page.evaluate(FOCUS)
            assert focus["style"] != "none"
            assert focus["width"] >= 2
            if page.evaluate("document.activeElement.matches(':focus-visible')") and name.search(
                page.evaluate(
                    "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
                )
            ):
                return
        pytest.fail(f"Tab does not reach {name.pattern}")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    go_to(re.compile("Choose images"))
    with page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files([image("teal"), image("amber")])
    expect(page.locator(".bars li:first-child .class")).to_have_text(["teal", "amber"])
    go_to(re.compile("Download CSV"))
    with page.expect_download():
        press("Enter")
    go_to(re.compile("Heat map of teal"))
    press("Home")
    expect(page.locator(".heat-map").first).to_have_css("opacity", "0")
    press("ArrowRight", 3)
    expect(page.locator(".heat-map").first).to_have_css("opacity", "0.03")
    go_to(re.compile("Remove amber"))
    press("Space")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_role("button", name="Remove teal.png")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("button", name="Choose images")).to_be_focused()


def test_answers_are_told_to_screen_readers(page, image, add):
    news = page.locator("#news[aria-live=polite]")
    add(image("teal"))
    expect(news).to_have_text(re.compile(r"^teal\.png: teal, \d+ percent$"))
    add({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"})
    expect(news).to_have_text("notes.txt: This is not an image, but text/plain.")
    add(image("amber"), image("violet"))
    expect(news).to_have_text("2 images answered; 4 images, 1 without an answer")


def test_nothing_moves_where_less_motion_is_wanted(open_page, image):
    for motion, duration in (("reduce", "0s"), ("no-preference", "0.25s")):
        page = open_page(reduced_motion=motion)
        expect(page.locator("#intake")).to_be_visible()
        page.set_input_files("#files", [image("teal")])
        expect(page.locator(".fill").first).to_have_css("transition-duration", duration)
