"""What is on disk: atomic files, the ledger, the lock, a run that is being written."""
