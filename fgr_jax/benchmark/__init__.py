"""What things cost: measured, or predicted where there is no machine to measure on."""
