"""Building blocks: taps, adapters, input adapters."""
