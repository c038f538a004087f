"""One training on several processes: torch.distributed, with the result of one process."""
