"""What a trained network does with a test split."""
