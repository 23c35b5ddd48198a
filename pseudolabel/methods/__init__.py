"""Map methods: (model, images, targets) to attribution, one a file."""
