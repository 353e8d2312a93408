"""What share of the requests each arm is given: a probability vector from exact sums, without a random draw."""
