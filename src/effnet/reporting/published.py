"""What papers and releases say about networks on ImageNet, as a table that can be checked by eye.

Accuracies are top-1 on the 50,000 validation images. Latencies are those of 2104.00298 table 7: milliseconds
for 16 images on a V100 in fp16. Training times are hours on 32 TPUv3 cores, as there. Where a source gives no
number there is none. Parameters and multiply-adds are rounded as printed.
"""

from __future__ import annotations

from typing import NamedTuple

LATENCY = "ms for 16 images, V100, fp16"
TRAINING = "hours on 32 TPUv3 cores"

_TABLE_1 = "2104.00298 table 1"
_TABLE_7 = "2104.00298 table 7"
_V1 = "tensorflow/tpu README (AutoAugment); 1905.11946 table 2"
_V2_B = "google/automl README"


class Published(NamedTuple):
    """One network as it was published."""

    series: str
    name: str
    network: str
    """In this project's family; empty: it has none."""
    top1: float
    """Per cent."""
    params: float
    """Millions."""
    macs: float
    """Billions of multiply-adds of one image."""
    latency: float | None
    """See `LATENCY`."""
    training: float | None
    """See `TRAINING`."""
    source: str


V1, V2, V2_21K = "EfficientNet", "EfficientNetV2", "EfficientNetV2, ImageNet-21k"

# fmt: off
PUBLISHED = (
    #         series       name           network   top1  params  macs  latency training source
    Published(V1,          "B0",          "v1-b0",  77.1,   5.3,   0.39, None,  None, _V1),
    Published(V1,          "B1",          "v1-b1",  79.1,   7.8,   0.70, None,  None, _V1),
    Published(V1,          "B2",          "v1-b2",  80.1,   9.2,   1.0,  None,  None, _V1),
    Published(V1,          "B3",          "v1-b3",  81.5,  12.0,   1.9,    19,    10, _TABLE_7),
    Published(V1,          "B4",          "v1-b4",  82.9,  19.0,   4.2,    30,    21, _TABLE_7),
    Published(V1,          "B5",          "v1-b5",  83.7,  30.0,  10.0,    60,    43, _TABLE_7),
    Published(V1,          "B6",          "v1-b6",  84.3,  43.0,  19.0,    97,    75, _TABLE_7),
    Published(V1,          "B7",          "v1-b7",  84.7,  66.0,  38.0,   170,   139, _TABLE_7),
    Published(V2,          "V2-B0",       "v2-b0",  78.7,   7.1,   0.72, None,  None, _V2_B),
    Published(V2,          "V2-B1",       "v2-b1",  79.8,   8.1,   1.2,  None,  None, _V2_B),
    Published(V2,          "V2-B2",       "v2-b2",  80.5,  10.1,   1.7,  None,  None, _V2_B),
    Published(V2,          "V2-B3",       "v2-b3",  82.1,  14.4,   3.0,  None,  None, _V2_B),
    Published(V2,          "V2-S",        "v2-s",   83.9,  22.0,   8.8,    24,   7.1, _TABLE_7),
    Published(V2,          "V2-M",        "v2-m",   85.1,  54.0,  24.0,    57,    13, _TABLE_7),
    Published(V2,          "V2-L",        "v2-l",   85.7, 120.0,  53.0,    98,    24, _TABLE_7),
    Published(V2_21K,      "V2-S (21k)",  "v2-s",   84.9,  22.0,   8.8,    24,   9.0, _TABLE_7),
    Published(V2_21K,      "V2-M (21k)",  "v2-m",   86.2,  54.0,  24.0,    57,    15, _TABLE_7),
    Published(V2_21K,      "V2-L (21k)",  "v2-l",   86.8, 120.0,  53.0,    98,    26, _TABLE_7),
    Published(V2_21K,      "V2-XL (21k)", "v2-xl",  87.3, 208.0,  94.0,  None,    45, _TABLE_7),
    Published("NFNet",     "NFNet-F0",    "",       83.6,  72.0,  12.0,    30,   8.9, _TABLE_7),
    Published("NFNet",     "NFNet-F1",    "",       84.7, 133.0,  36.0,    70,    20, _TABLE_7),
    Published("NFNet",     "NFNet-F2",    "",       85.1, 194.0,  63.0,   124,    36, _TABLE_7),
    Published("NFNet",     "NFNet-F3",    "",       85.7, 255.0, 115.0,   203,    65, _TABLE_7),
    Published("NFNet",     "NFNet-F4",    "",       85.9, 316.0, 215.0,   309,   126, _TABLE_7),
    Published("RegNetY",   "RegNetY-8GF", "",       81.7,  39.0,   8.0,    21,  None, _TABLE_7),
    Published("RegNetY",   "RegNetY-16GF", "",      82.9,  84.0,  16.0,    32,  None, _TABLE_7),
    Published("ResNeSt",   "ResNeSt-101", "",       83.0,  48.0,  13.0,    31,  None, _TABLE_7),
    Published("ResNeSt",   "ResNeSt-200", "",       83.9,  70.0,  36.0,    76,  None, _TABLE_7),
    Published("ResNeSt",   "ResNeSt-269", "",       84.5, 111.0,  78.0,   160,  None, _TABLE_7),
    Published("ResNet-RS", "ResNet-RS-420", "",     84.4, 192.0, 128.0,  None,  None, _TABLE_1),
    Published("ViT, ImageNet-21k", "ViT-L/16 (21k)", "", 85.3, 304.0, 192.0, 195, 172, _TABLE_7),
)
# fmt: on

SMALL = ("v1-b0", "v1-b1", "v1-b2", "v1-b3", "v2-b0", "v2-b1", "v2-b2", "v2-b3", "v2-s")
"""Networks that a laptop measures in a minute."""


def measurable() -> tuple[str, ...]:
    """Return the networks of this project that have a published accuracy, each once."""
    return tuple(dict.fromkeys(point.network for point in PUBLISHED if point.network))
