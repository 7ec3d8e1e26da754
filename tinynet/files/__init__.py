"""What is on disk: models and checkpoints, written whole or not at all, and read without trust."""
