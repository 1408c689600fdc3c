"""What a student minimises: written, published, explained."""
