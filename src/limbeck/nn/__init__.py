"""Building blocks: taps, adapters, heads, input adapters."""

from limbeck.nn.adapters import Adapter
from limbeck.nn.factor import Paraphraser, Translator
from limbeck.nn.forward import Forward, as_record
from limbeck.nn.input import InputAdapter
from limbeck.nn.taps import Taps, tap_shapes

__all__ = [
    "Adapter",
    "Forward",
    "InputAdapter",
    "Paraphraser",
    "Taps",
    "Translator",
    "as_record",
    "tap_shapes",
]
