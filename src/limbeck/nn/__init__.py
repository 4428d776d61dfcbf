"""Building blocks: taps, adapters, heads, input adapters."""

from limbeck.nn.forward import Forward, as_record
from limbeck.nn.input import InputAdapter
from limbeck.nn.taps import Taps, tap_shapes

__all__ = ["Forward", "InputAdapter", "Taps", "as_record", "tap_shapes"]
