"""Map methods: (model, images, targets) to evidence, one a file."""
