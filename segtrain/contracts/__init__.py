"""Contract suites of segtrain's components; run them on your own components."""
