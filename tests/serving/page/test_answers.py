"""What a person sees who gives images to the page: classes, heat maps, errors, two networks side by side."""

from __future__ import annotations

import base64

import pytest
from playwright.sync_api import expect

TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
DISGUISED = {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no image either"}
NEW_TRANSFER = """files => {
    const transfer = new DataTransfer();
    for (const {name, type, data} of files) {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, {type}));
    }
    return transfer;
}"""


def best(card):
    return card.locator(".bars li:first-child .class")


def transfer(page, *files):
    """What a browser hands over with files that are dropped or pasted."""
    plain = [
        {
            "name": file["name"],
            "type": file["mimeType"],
            "data": base64.b64encode(file["buffer"]).decode(),
        }
        for file in files
    ]
    return page.evaluate_handle(NEW_TRANSFER, plain)


@pytest.mark.parametrize("color", ["amber", "teal", "violet"])
def test_a_dropped_image_gets_its_class_and_its_heat_map(page, image, color):
    files = transfer(page, image(color))
    page.dispatch_event("main", "dragenter", {"dataTransfer": files})
    expect(page.locator("#drop-hint")).to_be_visible()
    page.dispatch_event("main", "drop", {"dataTransfer": files})
    expect(page.locator("#drop-hint")).to_be_hidden()
    card = page.locator(".card")
    expect(best(card)).to_have_text(color)
    expect(card.locator(".bars li")).to_have_count(3)
    heat = card.get_by_role("img", name=f"Where right looked for {color}")
    expect(heat).to_be_visible()
    assert heat.evaluate("map => [map.complete, map.naturalWidth]") == [True, 32]


def test_bars_are_as_long_as_the_probabilities_that_are_written(page, image, add):
    add(image("amber"))
    shares = page.locator(".card .fill").evaluate_all(
        "fills => fills.map((fill) => parseFloat(fill.style.width))"
    )
    assert sum(shares) == pytest.approx(100, abs=0.01)
    assert shares == sorted(shares, reverse=True)
    written = page.locator(".bars li:first-child .percent").inner_text()
    assert float(written.strip("> ").split("\u202f")[0]) == pytest.approx(shares[0], abs=0.11)


def test_the_slider_blends_the_heat_map_over_what_the_network_saw(page, image, add):
    add(image("amber", width=80, height=40))
    heat, photo = page.locator(".heat-map"), page.locator(".photo")
    slider = page.get_by_label("Heat map of amber.png")
    for value, opacity in ((0, "0"), (100, "1")):
        slider.fill(str(value))
        expect(heat).to_have_css("opacity", opacity)
    seen, whole = heat.bounding_box(), photo.bounding_box()
    assert whole["width"] / whole["height"] == pytest.approx(2, rel=0.02)
    # The square in the middle, as the weights' preprocessing says.
    fraction = page.evaluate("fetch('v1/models').then(r => r.json()).then(r => r.models[0].crop_fraction)")
    assert seen["height"] == pytest.approx(fraction * whole["height"], abs=1)
    assert seen["width"] == pytest.approx(fraction * whole["height"], abs=1)
    middle = [box["x"] + box["width"] / 2 for box in (seen, whole)]
    assert middle[0] == pytest.approx(middle[1], abs=1)


def test_heat_maps_that_are_not_wanted_are_not_asked_for(page, image, add):
    page.get_by_label("Heat maps").uncheck()
    with page.expect_response("**/v1/predict") as without:
        add(image("teal"))
    assert "cam" not in without.value.json()["results"][0]
    expect(page.locator(".heat-map")).to_be_hidden()
    expect(page.locator(".heat")).to_be_hidden()
    with page.expect_response("**/v1/predict") as with_map:
        page.get_by_label("Heat maps").check()
    expect(page.locator(".heat-map")).to_be_visible()
    assert with_map.value.json()["results"][0]["cam"] == page.locator(".heat-map").get_attribute("src")
    expect(best(page.locator(".card"))).to_have_text("teal")


def test_a_network_that_cannot_draw_heat_maps_is_not_asked_for_any(open_page, image):
    def without_maps(route):
        models = route.fetch().json()["models"]
        route.fulfill(json={"models": [{**model, "cam": False} for model in models]})

    page = open_page(lambda page: page.route("**/v1/models", without_maps))
    with page.expect_response("**/v1/predict") as answer:
        page.set_input_files("#files", [image("teal")])
    assert "cam" not in answer.value.json()["results"][0]
    expect(best(page.locator(".card"))).to_have_text("teal")
    expect(page.locator(".heat")).to_be_hidden()


def test_a_text_file_gets_an_error_in_plain_words_and_the_others_their_answers(page, image, add):
    add(TEXT, image("amber"), DISGUISED)
    cards = page.locator(".card")
    expect(cards).to_have_count(3)
    expect(cards.nth(0).locator(".error")).to_have_text("This is not an image, but text/plain.")
    expect(best(cards.nth(1))).to_have_text("amber")
    expect(cards.nth(2).locator(".error")).to_contain_text("not an image")
    expect(cards.nth(2).locator(".frame")).to_be_hidden()
    expect(page.locator("#tally")).to_have_text("3 images, 2 without an answer")


def test_what_the_server_would_refuse_is_not_sent(open_page, image):
    limits = {"max_bytes": 20_480, "max_pixels": 3000, "max_images": 8, "needs_token": False}
    sent = []

    def before(page):
        page.route("**/v1/limits", lambda route: route.fulfill(json=limits))
        page.on("request", lambda request: sent.append(request.url))

    page = open_page(before)
    expect(page.locator("#limits")).to_contain_text("20 kB")
    empty = {"name": "empty.png", "mimeType": "image/png", "buffer": b""}
    page.set_input_files(
        "#files", [image("teal", width=200, height=200), image("teal", width=60, height=60), empty]
    )
    errors = page.locator(".error:visible")
    expect(errors).to_have_count(3)
    assert "this server takes at most 20 kB" in errors.nth(0).inner_text()
    assert "megapixels; this server takes at most" in errors.nth(1).inner_text()
    assert errors.nth(2).inner_text() == "This file is empty."
    assert not [url for url in sent if "predict" in url]


def test_names_of_files_are_text(page, image, add):
    name = "<img src=x onerror=alert(1)>.png"
    add(image("teal", name))
    expect(page.locator(".card h3")).to_have_text(name)
    expect(page.get_by_role("button", name=f"Remove {name}")).to_be_visible()


def test_of_a_dropped_folder_the_images_are_taken(page, image, tmp_path):
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name, color in (("photos/a.png", "teal"), ("photos/more/b.png", "amber")):
        (tmp_path / name).write_bytes(image(color)["buffer"])
    (tmp_path / "photos" / "notes.txt").write_text("not asked for")
    (tmp_path / "c.png").write_bytes(image("violet")["buffer"])
    drag = page.context.new_cdp_session(page)
    files = [str(tmp_path / "photos"), str(tmp_path / "c.png")]
    for kind in ("dragEnter", "dragOver", "drop"):  # As the desktop does.
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        drag.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    expect(page.locator(".card")).to_have_count(3)
    cards = {card.locator("h3").inner_text(): card for card in page.locator(".card").all()}
    for name, color in {"a.png": "teal", "b.png": "amber", "c.png": "violet"}.items():
        expect(best(cards[name])).to_have_text(color)


def test_pasted_images_are_answered(page, image):
    page.evaluate(
        "transfer => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer}))",
        transfer(page, image("violet", "image.png")),
    )
    card = page.locator(".card")
    expect(best(card)).to_have_text("violet")
    expect(card.locator("h3")).to_contain_text("pasted")


def test_the_camera_takes_pictures_until_it_is_closed(page):
    page.get_by_role("button", name="Use the camera").click()
    shutter = page.get_by_role("button", name="Take a picture")
    expect(shutter).to_be_enabled()
    assert page.locator("#view").evaluate("view => view.videoWidth > 0")
    shutter.click()
    expect(page.locator("#camera-note")).to_have_text("1 picture taken")
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#camera-dialog")).to_be_hidden()
    assert page.locator("#view").evaluate("view => view.srcObject") is None
    expect(page.locator(".card h3")).to_contain_text("camera")
    expect(page.locator(".card .bars li")).to_have_count(3)


def test_a_camera_that_is_not_allowed_is_explained(open_page):
    refusal = "Promise.reject(new DOMException('no', 'NotAllowedError'))"
    refuse = f"navigator.mediaDevices.getUserMedia = () => {refusal};"
    page = open_page(lambda page: page.add_init_script(refuse))
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#camera-note")).to_contain_text("The camera is not allowed for this page")
    expect(page.get_by_role("button", name="Take a picture")).to_be_disabled()


def test_a_phone_without_a_live_view_takes_the_photo_itself(open_page, image):
    hide = "Object.defineProperty(navigator, 'mediaDevices', {value: undefined});"
    page = open_page(lambda page: page.add_init_script(hide), is_mobile=True, has_touch=True)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Use the camera").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files([image("teal")])
    expect(best(page.locator(".card"))).to_have_text("teal")


def test_two_networks_are_compared_side_by_side(page, image, add):
    add(image("amber"), image("teal"))
    page.get_by_label("Compare with").select_option("wrong")
    expect(page.locator("#tally")).to_have_text("2 images, the same class for 1 of 2")
    amber, teal = page.locator(".card").all()
    assert amber.locator("h4").all_inner_texts() == ["right", "wrong"]
    assert best(amber).all_inner_texts() == ["amber", "violet"]
    assert best(teal).all_inner_texts() == ["teal", "teal"]
    expect(amber.locator(".verdict")).to_have_text("They differ")
    expect(teal.locator(".verdict")).to_have_text("They agree")
    expect(amber.get_by_role("img", name="Where wrong looked for violet")).to_be_visible()
    left, right = (panel.bounding_box() for panel in amber.locator(".panel").all())
    assert left["x"] + left["width"] <= right["x"]
    page.get_by_label("Only where they differ").check()
    expect(amber).to_be_visible()
    expect(teal).to_be_hidden()
    page.get_by_label("Compare with").select_option("nothing")
    expect(teal).to_be_visible()
    expect(page.locator(".verdict:visible")).to_have_count(0)


def test_another_network_answers_for_the_images_that_are_there(page, image, add):
    add(image("violet"))
    page.get_by_label("Model").select_option("wrong")
    expect(best(page.locator(".card"))).to_have_text("amber")


def test_new_images_come_first_and_removed_ones_leave_no_copy_behind(open_page, image):
    counts = """
        window.copies = new Set();
        const [make, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
        URL.createObjectURL = (blob) => { const url = make(blob); copies.add(url); return url; };
        URL.revokeObjectURL = (url) => { copies.delete(url); revoke(url); };
    """
    page = open_page(lambda page: page.add_init_script(counts))
    expect(page.locator("#intake")).to_be_visible()
    for color in ("teal", "amber", "violet"):
        page.set_input_files("#files", [image(color)])
    titles = page.locator(".card h3")
    expect(titles).to_have_text(["violet.png", "amber.png", "teal.png"])
    expect(page.locator("#progress")).to_be_hidden()
    assert page.evaluate("copies.size") == 3
    page.get_by_role("button", name="Remove amber.png").click()
    expect(titles).to_have_text(["violet.png", "teal.png"])
    assert page.evaluate("copies.size") == 2
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#results")).to_be_hidden()
    assert page.evaluate("copies.size") == 0


def test_many_classes_are_listed_on_request(open_page):
    model = {
        "name": "large",
        "network": "v2-s",
        "image_size": 384,
        "classes": [f"class {i}" for i in range(1000)],
    }
    page = open_page(
        lambda page: page.route("**/v1/models", lambda route: route.fulfill(json={"models": [model]}))
    )
    expect(page.locator("#about")).to_have_text(
        "v2-s at 384 px names one of 1,000 classes, whatever the picture shows."
    )
    page.get_by_text("All classes").click()
    expect(page.get_by_text("class 999")).to_be_attached()
    expect(page.get_by_label("Model")).to_be_hidden()


def test_what_is_no_file_is_refused_in_plain_words(page, image):
    link = page.evaluate_handle("new DataTransfer()")
    link.evaluate("link => link.setData('text/uri-list', 'https://a.example')")
    page.dispatch_event("main", "drop", {"dataTransfer": link})
    expect(page.get_by_role("alert")).to_contain_text("Only files can be dropped here")
    page.dispatch_event("main", "drop", {"dataTransfer": transfer(page, image("teal"))})
    expect(best(page.locator(".card"))).to_have_text("teal")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_files_that_come_before_the_page_is_ready_are_kept(open_page, image):
    held = []

    def hold(route):
        held.append(route)

    page = open_page(lambda page: page.route("**/v1/limits", hold))
    page.set_input_files("#files", [image("amber")])
    held[0].continue_()
    expect(best(page.locator(".card"))).to_have_text("amber")
