"""The machine: loop, ranks, precision, checkpoints, random streams, metrics log."""
