"""What is done with tidy tables alone: their form, summaries over seeds, and quantities that follow from others."""
