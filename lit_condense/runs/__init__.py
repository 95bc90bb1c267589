"""A run on this machine: its trainer, its files, its time and memory."""
