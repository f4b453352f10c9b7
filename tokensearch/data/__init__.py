"""Images to measure accuracy on: bundled, photographs, folders and named sets; three splits."""
