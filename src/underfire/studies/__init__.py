"""Studies: families of the paper's tables, each a plan of stages and the table they fill."""
