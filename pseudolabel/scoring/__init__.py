"""A run against ground truth: truth, reference maps, counts, threshold picks; files in, numbers out."""
