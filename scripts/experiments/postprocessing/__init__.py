"""What refiners, superpixels and a CRF add to each kind of map."""
