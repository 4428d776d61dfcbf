"""How a student learns from its teachers: one file a method, one line in the registry."""
