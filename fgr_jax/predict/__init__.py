"""What a trained network makes of pictures that nobody has labeled."""
