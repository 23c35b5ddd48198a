"""What bf16 changes in masks, in mIoU and in speed."""
