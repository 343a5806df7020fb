"""Weights of ours and of other libraries: names, formats, files, and the hub."""

from effnet.weights.adapt import fit_state as fit_state
from effnet.weights.files import LoadedWeights as LoadedWeights
from effnet.weights.files import save_weights as save_weights
from effnet.weights.hub import is_timm_folder as is_timm_folder
from effnet.weights.load import load_weights as load_weights
from effnet.weights.naming import with_class_names as with_class_names
from effnet.weights.soup import average_weights as average_weights
from effnet.weights.timm_export import export_timm as export_timm
from effnet.weights.timm_export import export_torchvision as export_torchvision
