"""The typed description of a run, its overrides, and the run folder."""
