"""Training: from initial weights or a checkpoint to the last epoch."""
