"""What is measured: distances and overlaps of maps, objects found, classes recognised, and intervals."""
