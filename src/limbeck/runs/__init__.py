"""What users ask for: train, distill, evaluate, predict, compare, quickstart."""
