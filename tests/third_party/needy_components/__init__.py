"""Components that need more than scores, image and parameters, for tests."""
