"""Images to masks, shared by generate, refine, preview and reference: reading, explaining, postprocessing."""
