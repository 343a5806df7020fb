"""Settings for the whole suite."""

import matplotlib as mpl
import torch

mpl.use("Agg")
# Two busy cores oversubscribe badly: one thread is several times faster here.
torch.set_num_threads(1)
