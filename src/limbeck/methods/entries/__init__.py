"""The registry's lines, a file a family. Torch is not imported here."""
