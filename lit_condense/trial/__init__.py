"""What a run will need, tried before its first update."""
