"""Contract suites: what every component of a kind must keep; run them on your own components."""
