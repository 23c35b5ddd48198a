"""What every training loop shares: schedule, order, checkpoint, device."""
