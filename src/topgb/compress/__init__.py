"""Model files to a smaller or better one: quantise, average, ensemble, fit weights, shrink to a budget."""
