"""What computes a network's answers fastest on this machine: PyTorch, or a runtime on an export of it."""

from effnet.engines.choosing import EngineName as EngineName
from effnet.engines.choosing import use_engine as use_engine
