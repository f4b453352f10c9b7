"""A model and pictures as people have them: DINOv2 ViT-S/14, and crops to tell apart."""
