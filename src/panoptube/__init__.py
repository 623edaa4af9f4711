"""panoptube: video panoptic segmentation. Every pixel labelled, every segment followed."""
