"""Recording what goes into a machine, and replaying it without a network."""

from .format import BadRecording, Header
from .recorder import recorded
from .replay import Replay, Step

__all__ = ["BadRecording", "Header", "Replay", "Step", "recorded"]
