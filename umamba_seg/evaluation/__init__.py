"""Label maps judged: measures of each case, and whether two methods differ."""
