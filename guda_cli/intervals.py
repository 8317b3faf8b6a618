"""How far a 95 % interval reaches, for all who make one from a standard error."""

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile: an estimate's interval is this many standard errors each way."""


def student95(df: float) -> float:
    """The same of Student's t with `df` degrees of freedom: where the standard error is estimated itself."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))
