"""What is measured: each scenario is data (who, how much, how often) and one function that measures one run of it."""
