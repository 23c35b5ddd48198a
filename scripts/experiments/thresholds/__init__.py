"""What a threshold costs that was picked on other images, on few images or without ground truth."""
