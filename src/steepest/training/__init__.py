"""Training runs: the engines, their stop conditions, metrics, random numbers and records."""
