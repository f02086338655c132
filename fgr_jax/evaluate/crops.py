"""The crops of each test image that are evaluated."""

CROPS = {"one": 1, "five": 5}  # their number
