"""The training engine under `pl train` and `seg train`: order, step, limits, resume, devices and ranks."""
