"""What lies on a disk or at a URL, read by number: files, records of tfds, their offsets."""
