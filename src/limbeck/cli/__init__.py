"""The command: one file a verb; nothing imports it."""
