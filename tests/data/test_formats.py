"""Every format, colour and orientation: what we decode is what Pillow, Little CMS and nobody else would.

The slow path of these tests uses Pillow alone, decodes everything, and takes each step in full.
"""

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from effnet.config import DataConfig
from effnet.data.color import MAX_PROFILE_BYTES, srgb_transform
from effnet.data.crops import Crop, draw_crop
from effnet.data.decode import decode_image, open_image
from effnet.data.pillow import BACKGROUND, BadImageError
from effnet.data.transforms import resize_crop

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

HEIGHT, WIDTH = 251, 333
SMALL = (141, 107)  # Width and height of what is never decoded at a scale.
FLOWERS = Path(__file__).parents[2].parent / "shared" / "data" / "flower_photos"


# The slow path


def slow_pixels(encoded):
    image = Image.open(io.BytesIO(encoded))
    image.load()
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "I;16":
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    alpha = upright.convert("RGBA").getchannel("A") if upright.has_transparency_data else None
    if upright.mode in ("LA", "1"):
        upright = upright.convert("L")
    elif upright.mode not in ("L", "CMYK", "LAB"):
        upright = upright.convert("RGBA").convert("RGB")
    if profile:
        source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        upright = ImageCms.profileToProfile(upright, source, srgb, outputMode="RGB")
    upright = upright.convert("RGB")
    if alpha is not None:
        upright = Image.composite(upright, Image.new("RGB", upright.size, BACKGROUND), alpha)
    return np.asarray(upright)


def slow_view(pixels, crop, size):
    """Cut out and resize, as others do, or resize at once where the edges lie between pixels."""
    image, box = Image.fromarray(pixels), (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
    if all(float(edge).is_integer() for edge in box):
        image, box = image.crop(tuple(map(int, box))), None
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(int) - theirs).mean()


# Profiles


def s15(value):
    return struct.pack(">i", round(value * 65536))


def profile_of(kind, tags):
    """Write an ICC profile of version 2 with some tags."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + s15(0.9642) + s15(1) + s15(0.8249)
    table, body, place = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    connection = b"Lab " if kind == b"CMYK" else b"XYZ "
    device = b"prtr" if kind == b"CMYK" else b"mntr"
    header = struct.pack(">II", place + len(body), 0) + b"\2\x10\0\0" + device + kind + connection
    header += bytes(12) + b"acsp" + bytes(28) + s15(0.9642) + s15(1) + s15(0.8249) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(columns, exponent):
    tags = {}
    for name, column in zip("rgb", columns, strict=True):
        tags[f"{name}XYZ".encode()] = b"XYZ " + bytes(4) + b"".join(map(s15, column))
        tags[f"{name}TRC".encode()] = gamma(exponent)
    return profile_of(b"RGB ", tags)


def cmyk_profile():
    """Inks of which each takes away a part of the light, and the black a little less than all."""
    corners = []
    for index in range(16):
        cyan, magenta, yellow, black = (index >> shift & 1 for shift in (3, 2, 1, 0))
        light = 100 * (1 - 0.3 * cyan) * (1 - 0.4 * magenta) * (1 - 0.1 * yellow) * (1 - 0.9 * black)
        a, b = 128 - 35 * cyan + 70 * magenta - 5 * yellow, 128 - 50 * cyan - 5 * magenta + 90 * yellow
        corners += [round(light * 2.55), min(a, 255), min(b, 255)]
    ramp = bytes(range(256))
    identity = b"".join(s15(float(row == column)) for row in range(3) for column in range(3))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(corners) + ramp * 3
    return profile_of(b"CMYK", {b"A2B0": table})


SRGB_COLUMNS = [(0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
ADOBE_RGB = rgb_profile([(0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)], 2.2)
DARKER_GREY = profile_of(b"GRAY", {b"kTRC": gamma(1.6)})
INKS = cmyk_profile()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# Files


def jpeg_of_planes(pixels, colorspace="RGB", chroma="420", quality=92):
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorspace=colorspace, colorsubsampling=chroma
    )


def with_profile(jpeg, profile, part=60_000):
    """Put a profile behind the start of a JPEG file, in parts."""
    parts = [profile[place : place + part] for place in range(0, len(profile), part)]
    segments = b""
    for number, part_of_it in enumerate(parts, start=1):
        content = b"ICC_PROFILE\0" + bytes((number, len(parts))) + part_of_it
        segments += b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content
    return jpeg[:2] + segments + jpeg[2:]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def sixteen_bits(image):
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    return Image.fromarray(grey * 256 + grey[::-1])


def with_alpha(image, mode="RGBA"):
    image = image.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def lab(image):
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    return to_lab.apply(image)


def jpegs(encode, image):
    """Return a JPEG file of every kind, by what it is."""
    pixels, inks, grey = np.asarray(image), image.convert("CMYK"), image.convert("L")
    kinds = {
        "JPEG baseline": encode(image, "JPEG", quality=90),
        "JPEG progressive": encode(image, "JPEG", quality=90, progressive=True),
        "JPEG with restarts": encode(image, "JPEG", quality=90, restart_marker_rows=1),
        "JPEG grey": encode(grey, "JPEG", quality=90),
        "JPEG RGB": encode(image, "JPEG", quality=90, keep_rgb=True),
        "JPEG CMYK": encode(inks, "JPEG", quality=90),
        "JPEG CMYK with ICC": encode(inks, "JPEG", quality=90, icc_profile=INKS),
        "JPEG YCCK": jpeg_of_planes(255 - np.asarray(inks), "CMYK"),
        "JPEG with sRGB": encode(image, "JPEG", quality=90, icc_profile=SRGB),
        "JPEG with Adobe RGB": encode(image, "JPEG", quality=90, icc_profile=ADOBE_RGB),
        "JPEG with Adobe RGB in parts": with_profile(jpeg_of_planes(pixels), ADOBE_RGB, part=100),
        "JPEG grey with ICC": encode(grey, "JPEG", quality=90, icc_profile=DARKER_GREY),
        "JPEG turned with ICC": encode(image, "JPEG", quality=90, icc_profile=ADOBE_RGB, exif=turned(6)),
    }
    for chroma in ("444", "422", "420", "440", "411"):
        kinds[f"JPEG {chroma}"] = jpeg_of_planes(pixels, chroma=chroma)
    for orientation in range(2, 9):
        kinds[f"JPEG turned by {orientation}"] = encode(image, "JPEG", quality=90, exif=turned(orientation))
    return kinds


def others(encode, image):
    """Return a file of every kind that is no JPEG, by what it is."""
    pixels, inks, grey, palette = (
        np.asarray(image),
        image.convert("CMYK"),
        image.convert("L"),
        image.quantize(256),
    )
    transparent = tuple(pixels[5, 5].tolist())
    kinds = {
        "PNG": encode(image, "PNG"),
        "PNG grey": encode(grey, "PNG"),
        "PNG of 1 bit": encode(image.convert("1"), "PNG"),
        "PNG of 16 bits": encode(sixteen_bits(image), "PNG"),
        "PNG with palette": encode(palette, "PNG"),
        "PNG with palette and tRNS": encode(palette, "PNG", transparency=bytes(range(0, 240, 6))),
        "PNG with a transparent color": encode(image, "PNG", transparency=transparent),
        "PNG with alpha": encode(with_alpha(image), "PNG"),
        "PNG grey with alpha": encode(with_alpha(image, "L"), "PNG"),
        "PNG with alpha and Adobe RGB": encode(with_alpha(image), "PNG", icc_profile=ADOBE_RGB),
        "PNG grey with ICC": encode(grey, "PNG", icc_profile=DARKER_GREY),
        "WebP": encode(image, "WEBP", quality=90),
        "WebP lossless": encode(image, "WEBP", lossless=True),
        "WebP with alpha": encode(with_alpha(image), "WEBP", lossless=True),
        "WebP with Adobe RGB": encode(image, "WEBP", lossless=True, icc_profile=ADOBE_RGB),
        "AVIF": encode(image, "AVIF", quality=80, speed=10),
        "AVIF with alpha": encode(with_alpha(image), "AVIF", quality=80, speed=10),
        "AVIF with Adobe RGB": encode(image, "AVIF", speed=10, icc_profile=ADOBE_RGB),
        "GIF": encode(palette, "GIF"),
        "GIF with a transparent color": encode(palette, "GIF", transparency=3),
        "GIF of two frames": encode(palette, "GIF", save_all=True, append_images=[ImageOps.mirror(palette)]),
        "TIFF": encode(image, "TIFF"),
        "TIFF with LZW": encode(image, "TIFF", compression="tiff_lzw"),
        "TIFF with JPEG": encode(image, "TIFF", compression="jpeg"),
        "TIFF grey": encode(grey, "TIFF"),
        "TIFF of 16 bits": encode(sixteen_bits(image), "TIFF"),
        "TIFF with alpha": encode(with_alpha(image), "TIFF"),
        "TIFF CMYK": encode(inks, "TIFF"),
        "TIFF CMYK with ICC": encode(inks, "TIFF", icc_profile=INKS),
        "TIFF LAB": encode(lab(image), "TIFF"),
        "TIFF with palette": encode(palette, "TIFF"),
        "BMP": encode(image, "BMP"),
        "BMP with palette": encode(palette, "BMP"),
        "PPM": encode(image, "PPM"),
        "PGM": encode(grey, "PPM"),
        "PBM": encode(image.convert("1"), "PPM"),
    }
    for kind, options in (("PNG", {}), ("TIFF", {}), ("AVIF", {"speed": 10}), ("WEBP", {"lossless": True})):
        for orientation in range(2, 9):
            kinds[f"{kind} turned by {orientation}"] = encode(
                image, kind, exif=turned(orientation), **options
            )
    return kinds


class ByKind(dict):
    def __repr__(self):
        return f"<{len(self)} kinds>"  # Hypothesis writes out what a test gets.


@pytest.fixture(scope="module")
def kinds(picture, encode):
    image = Image.fromarray(picture(HEIGHT, WIDTH, seed=3))
    return ByKind(jpegs(encode, image) | others(encode, image.resize(SMALL)))


@pytest.fixture(scope="module")
def slow(kinds):
    return ByKind({kind: slow_pixels(encoded) for kind, encoded in kinds.items()})


# All of an image


def test_every_kind_is_decoded_as_by_the_slow_path(kinds, slow):
    differences = {kind: difference(decode_image(encoded), slow[kind]) for kind, encoded in kinds.items()}
    assert len(kinds) > 80
    assert {kind: value for kind, value in differences.items() if value > 0.2} == {}


def test_what_looks_alike_is_decoded_alike(kinds, picture):
    unlike = ("grey", "PGM", "PBM", "bit", "ICC", "Adobe", "alpha", "transparent", "tRNS", "turned")
    alike = [kind for kind in kinds if not any(word in kind for word in unlike)]
    assert {"JPEG YCCK", "JPEG CMYK", "TIFF LAB", "TIFF CMYK", "AVIF", "GIF", "JPEG with sRGB"} <= set(alike)
    written = {True: picture(HEIGHT, WIDTH, seed=3), False: decode_image(kinds["PNG"])}
    differences = {
        kind: difference(decode_image(kinds[kind]), written[kind.startswith("JPEG")]) for kind in alike
    }
    assert {kind: value for kind, value in differences.items() if value > 9} == {}


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_image_is_upright_in_every_format(kinds, orientation):
    plain = {"JPEG": "JPEG baseline", "PNG": "PNG", "TIFF": "TIFF", "AVIF": "AVIF", "WEBP": "WebP lossless"}
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    for kind, upright in plain.items():
        expected = Image.fromarray(decode_image(kinds[upright])).transpose(Image.Transpose(method))
        ours = decode_image(kinds[f"{kind} turned by {orientation}"])
        assert difference(ours, np.asarray(expected)) < (4 if kind in ("JPEG", "AVIF") else 0.01), kind


def test_orientation_counts_behind_other_data_and_in_xmp(kinds, encode, picture):
    jpeg = kinds["JPEG turned by 6"]
    upright = decode_image(jpeg)
    padding = b"\xff\xed\xff\xff" + bytes(0xFFFD)
    assert np.array_equal(decode_image(jpeg[:2] + padding + padding + jpeg[2:]), upright)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    turned_by_xmp = encode(picture(HEIGHT, WIDTH, seed=3), "JPEG", xmp=xmp)
    assert decode_image(turned_by_xmp).shape == upright.shape == slow_pixels(turned_by_xmp).shape


# Colours


@pytest.mark.parametrize(
    ("with_icc", "without"),
    [
        ("JPEG with Adobe RGB", "JPEG baseline"),
        ("JPEG with Adobe RGB in parts", "JPEG 420"),
        ("JPEG grey with ICC", "JPEG grey"),
        ("JPEG CMYK with ICC", "JPEG CMYK"),
        ("PNG with alpha and Adobe RGB", "PNG with alpha"),
        ("PNG grey with ICC", "PNG grey"),
        ("TIFF CMYK with ICC", "TIFF CMYK"),
        ("WebP with Adobe RGB", "WebP lossless"),
    ],
)
def test_a_profile_changes_the_colors(kinds, with_icc, without):
    assert difference(decode_image(kinds[with_icc]), decode_image(kinds[without])) > 2


def test_a_profile_that_does_what_srgb_does_is_skipped_whatever_its_name():
    assert srgb_transform(SRGB, "RGB") is None
    assert srgb_transform(ADOBE_RGB, "RGB") is not None
    # The curve is not sRGB's, though the corners are.
    assert srgb_transform(rgb_profile(SRGB_COLUMNS, 2.2), "RGB") is not None


def test_colors_are_those_that_the_profile_says():
    """A colour that both can show: the numbers follow from the matrices and curves alone."""
    levels = np.array([120, 160, 90])
    adobe = np.array([(0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)]).T
    linear = np.linalg.inv(np.array(SRGB_COLUMNS).T) @ adobe @ (levels / 255) ** (563 / 256)
    expected = 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    image = Image.new("RGB", (9, 9), tuple(levels.tolist()))
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=ADOBE_RGB)
    assert np.abs(decode_image(file.getvalue())[0, 0] - expected).max() < 1.5
    assert np.abs(levels - expected).max() > 10


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"no profile",
        ADOBE_RGB[:300],
        ADOBE_RGB[:200] + b"\xff" * 200 + ADOBE_RGB[400:],
        DARKER_GREY,
        INKS,
        ADOBE_RGB + bytes(MAX_PROFILE_BYTES),
    ],
    ids=["empty", "text", "truncated", "overwritten", "of grey", "of inks", "huge"],
)
def test_a_profile_that_cannot_be_used_is_ignored(kinds, profile):
    plain = kinds["JPEG 420"]
    assert np.array_equal(decode_image(with_profile(plain, profile)), decode_image(plain))


def test_a_profile_of_which_a_part_is_missing_is_ignored(kinds):
    plain = kinds["JPEG 420"]
    whole = with_profile(plain, ADOBE_RGB, part=100)
    second = whole.index(b"ICC_PROFILE\0\2") - 4
    missing = whole[:second] + whole[second + 2 + int.from_bytes(whole[second + 2 : second + 4], "big") :]
    assert np.array_equal(decode_image(missing), decode_image(plain))


def test_threads_share_a_transform(picture):
    transform = srgb_transform(ADOBE_RGB, "RGB")
    images = [Image.fromarray(picture(90, 110, seed)) for seed in range(8)] * 12
    alone = [transform.apply(image).tobytes() for image in images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda image: transform.apply(image).tobytes(), images)) == alone


# Crops


SHARE = st.floats(0, 1)
CROPS = st.tuples(SHARE, SHARE, SHARE, SHARE, st.booleans())


def crop_of(drawn, height, width):
    """Return a rectangle of at least one pixel, with whole or fractional edges."""
    *shares, is_whole = drawn
    crop_width, crop_height = 1 + shares[0] * (width - 1), 1 + shares[1] * (height - 1)
    if is_whole:
        crop_width, crop_height = int(crop_width), int(crop_height)
    x, y = shares[2] * (width - crop_width), shares[3] * (height - crop_height)
    return Crop(int(x), int(y), crop_width, crop_height) if is_whole else Crop(x, y, crop_width, crop_height)


def our_view(encoded, crop, size):
    """Return our view of a crop, and by what share of the sides the file was decoded."""
    part, inside = open_image(encoded).decode(crop, size)
    out = np.empty((size, size, 3), np.uint8)
    resize_crop(part, inside, interpolation="bilinear", antialias=True, out=out)
    return out, inside.width / crop.width


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0), drawn=CROPS, size=st.integers(24, 90))
def test_the_view_of_any_crop_is_that_of_the_slow_path(kinds, slow, place, drawn, size):
    kind = sorted(kinds)[place % len(kinds)]
    crop = crop_of(drawn, *slow[kind].shape[:2])
    view, scale = our_view(kinds[kind], crop, size)
    assert difference(view, slow_view(slow[kind], crop, size)) <= (1 if scale == 1 else 2)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0), drawn=CROPS, size=st.integers(4, 90))
def test_without_antialias_any_crop_has_all_its_pixels(kinds, slow, place, drawn, size):
    jpegs = sorted(kind for kind in kinds if kind.startswith("JPEG"))
    kind = jpegs[place % len(jpegs)]
    crop = crop_of(drawn, *slow[kind].shape[:2])
    picture = open_image(kinds[kind])
    assert (picture.height, picture.width) == slow[kind].shape[:2]
    part, inside = picture.decode(crop, size, antialias=False)
    rows, columns = inside.rounded(*part.shape[:2])
    expected = slow[kind][crop.rounded(picture.height, picture.width)]
    assert (inside.width, inside.height) == (crop.width, crop.height)
    assert difference(part[rows, columns], expected) < 0.2


def test_a_jpeg_is_decoded_at_the_scale_that_a_crop_needs(kinds):
    crop = Crop(10, 20, 160, 120)
    scales = {size: our_view(kinds["JPEG 420"], crop, size)[1] for size in (6, 7, 12, 13, 24, 25)}
    assert scales == {6: 1 / 8, 7: 1 / 4, 12: 1 / 4, 13: 1 / 2, 24: 1 / 2, 25: 1}


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [12, 24, 48])
def test_a_turned_photo_is_not_shifted_by_its_scale(kinds, slow, orientation, size):
    """The sides are no multiples of the scale, so that a mirrored copy starts with a part of a pixel."""
    kind = f"JPEG turned by {orientation}"
    height, width = slow[kind].shape[:2]
    view, scale = our_view(kinds[kind], Crop(0, 0, width, height), size)
    assert scale == {12: 1 / 8, 24: 1 / 4, 48: 1 / 2}[size]
    assert difference(view, slow_view(slow[kind], Crop(0, 0, width, height), size)) < 1.5


def test_views_of_real_photos_are_those_of_the_slow_path():
    if not FLOWERS.is_dir():
        pytest.skip("there are no flowers in shared/data beside the checkout")
    photos = sorted(FLOWERS.glob("*/*/*.jpg"))[::50]
    rng = np.random.default_rng(0)
    worst: dict[float, float] = {}
    for photo in photos:
        encoded = photo.read_bytes()
        pixels = slow_pixels(encoded)
        for size in (24, 32, 48, 96, 160):
            crop = draw_crop(*pixels.shape[:2], DataConfig(), rng)
            view, scale = our_view(encoded, crop, size)
            worst[scale] = max(worst.get(scale, 0), difference(view, slow_view(pixels, crop, size)))
    assert worst.keys() == {1, 1 / 2, 1 / 4}
    assert worst.pop(1) <= 1
    assert max(worst.values()) <= 2


@pytest.mark.parametrize("scale", [1 / 2, 1 / 4, 160 / 375, 240 / 333])
def test_rounding_a_scaled_crop_shifts_it_neither_way(scale):
    """Without antialias, crops of smaller copies are rounded: by up to half a pixel, but on average not."""
    crops = [
        Crop(x, x, width, width).scaled(scale, scale) for x in range(200) for width in (99, 100, 150, 151)
    ]
    rounded = [crop.rounded(1000, 1000)[1] for crop in crops]
    left = [columns.start - crop.x for columns, crop in zip(rounded, crops, strict=True)]
    right = [columns.stop - crop.x - crop.width for columns, crop in zip(rounded, crops, strict=True)]
    assert max(map(abs, left + right)) <= 0.5 + 1e-9
    assert abs(np.mean(left)) < 0.01
    assert abs(np.mean(right)) < 0.01


# What has no known range


def test_pixels_without_a_known_range_are_refused(encode):
    with pytest.raises(BadImageError, match="signed or 32-bit pixels have no known range"):
        decode_image(encode(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"))
    with pytest.raises(BadImageError, match="floating-point pixels have no known range"):
        decode_image(encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_sixteen_bit_grey_with_a_transparent_level_lies_on_white(encode):
    levels = Image.fromarray(np.array([[0, 256, 40_000]], np.uint16))
    assert decode_image(encode(levels, "PNG", transparency=256))[0, :, 0].tolist() == [0, 255, 156]
