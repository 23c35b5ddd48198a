"""Contract suites: what every brick of a room must keep; run them on your own bricks."""
