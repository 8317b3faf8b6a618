"""How far a 95 % interval reaches, for all who make one from a standard error."""

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile: an estimate's interval is this many standard errors each way."""
