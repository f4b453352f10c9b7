"""Accuracy of any callable on a split, image by image; knows no policies."""
