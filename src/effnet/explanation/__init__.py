"""What a network looks at: heat maps over its images."""

from effnet.explanation.maps import heat_maps as heat_maps
from effnet.explanation.methods import METHODS as METHODS
from effnet.explanation.methods import Method as Method
from effnet.explanation.overlay import overlay as overlay
