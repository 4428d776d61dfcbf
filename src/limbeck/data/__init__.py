"""Where samples come from: sources, splits, the batch plan, views (replayable augmentation)."""
