"""Small training sets as modules of Lightning: learned and selected ones, and what their checkpoints say."""
