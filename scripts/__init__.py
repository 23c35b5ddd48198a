"""Programs of the checkout: benchmarks, experiments, generated pages. None is installed with the packages."""
