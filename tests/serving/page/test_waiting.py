"""What the page does when the server is busy, gone, or wants a token."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect


def test_many_images_are_asked_for_a_few_at_a_time(page, image):
    held = []

    def hold(route):
        held.append(route)

    page.route("**/v1/predict", hold)
    page.set_input_files("#files", [image("teal", f"{index}.png") for index in range(12)])
    expect(page.locator(".picture:visible")).to_have_count(12)
    expect(page.locator("#tally")).to_have_text("12 images, 12 to go")
    assert len(held) == 4
    with page.expect_request("**/v1/predict"):
        held[0].continue_()
    expect(page.locator("#tally")).to_have_text("12 images, 11 to go")
    assert len(held) == 5


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(page, image, add, status):
    refused = []

    def refuse_twice(route):
        if len(refused) < 2:
            refused.append(route.request)
            route.fulfill(status=status, headers={"Retry-After": "0.5"}, json={"error": "too much to do"})
        else:
            route.continue_()

    page.route("**/v1/predict", refuse_twice)
    page.set_input_files("#files", [image("amber")])
    expect(page.locator("#tally")).to_have_text("1 image, 1 to go (the server is busy)")
    expect(page.locator(".bars li:first-child .class")).to_have_text("amber")
    expect(page.locator("#tally")).to_have_text("1 image")
    assert len(refused) == 2


def test_images_wait_to_be_tried_again_where_the_server_is_gone(page, image, add):
    page.route("**/v1/predict", lambda route: route.abort())
    add(image("amber"), image("teal"))
    expect(page.locator(".error").first).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/predict")
    page.locator(".card").first.get_by_role("button", name="Try again").click()
    expect(page.locator(".bars li:first-child .class")).to_have_text(["amber"])
    page.locator("#again").click()
    expect(page.locator(".bars li:first-child .class")).to_have_text(["amber", "teal"])
    expect(page.locator("#again")).to_be_hidden()


def test_what_is_no_answer_of_ours_is_told_by_its_status(page, image, add):
    page.route("**/v1/predict", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    add(image("amber"))
    expect(page.locator(".error")).to_have_text("The server failed (status 502).")
    expect(page.locator(".card .retry")).to_be_visible()


def test_an_answer_for_a_removed_image_is_dropped(page, image):
    held = []

    def hold(route):
        held.append(route)

    page.route("**/v1/predict", hold)
    for color in ("amber", "teal"):
        with page.expect_request("**/v1/predict"):
            page.set_input_files("#files", [image(color)])
    expect(page.locator("#tally")).to_have_text("2 images, 2 to go")
    page.get_by_role("button", name="Remove amber.png").click()
    held[1].continue_()
    expect(page.locator("#tally")).to_have_text("1 image")
    expect(page.locator(".bars li:first-child .class")).to_have_text(["teal"])


def test_a_page_that_finds_no_server_says_so_and_starts_later(open_page):
    page = open_page(lambda page: page.route("**/v1/limits", lambda route: route.abort()))
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/limits")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#intake")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_token_is_asked_for_and_kept_for_the_tab(open_page, image):
    limits = {"max_bytes": 10**7, "max_pixels": 10**8, "max_images": 8, "needs_token": True}
    token = ["sesame"]

    def check(route):
        if route.request.headers.get("authorization") == f"Bearer {token[0]}":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "the token is wrong"})

    def before(page):
        page.route("**/v1/limits", lambda route: route.fulfill(json=limits))
        page.route("**/v1/models", check)
        page.route("**/v1/predict", check)

    page = open_page(before)
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Enter the token").click()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token-note")).to_contain_text("does not know that token")
    field.fill("sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#intake")).to_be_visible()
    page.reload()
    expect(page.locator("#intake")).to_be_visible()

    token[0] = "changed"  # While images are waiting.
    page.set_input_files("#files", [image("amber"), image("teal")])
    expect(field).to_be_focused()
    field.fill("changed")
    page.keyboard.press("Enter")
    expect(page.locator(".bars li:first-child .class")).to_have_text(["amber", "teal"])
    assert page.evaluate("localStorage.length") == 0
