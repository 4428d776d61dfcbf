"""The small reference networks of the papers, and how a model is named on the command line."""
