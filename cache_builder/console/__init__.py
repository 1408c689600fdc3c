"""What commands have in common: progress, endings, names as people write them, the environment."""
