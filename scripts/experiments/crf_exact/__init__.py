"""What the lattice approximation of a dense CRF changes against the exact kernels."""
