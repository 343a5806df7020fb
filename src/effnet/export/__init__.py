"""Networks that leave Python: other forms of file, each checked by its own runtime before it is kept."""

from effnet.export.engine import Engine as Engine
from effnet.export.engine import is_exported as is_exported
from effnet.export.engine import load_engine as load_engine
