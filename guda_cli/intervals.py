"""How far a 95 % interval reaches, for all who make one from a standard error."""

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile: an estimate's interval is this many standard errors each way."""


def student95(df: float) -> float:
    """The same of Student's t with `df` degrees of freedom: where the standard error is estimated itself."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


def wilson95(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, from `hits` among `of`; the whole line where there are none."""
    if not of:
        return 0.0, 1.0
    share, z2 = hits / of, Z95**2
    middle = share + z2 / (2 * of)
    reach = Z95 * (share * (1 - share) / of + z2 / (4 * of**2)) ** 0.5
    return (middle - reach) / (1 + z2 / of), (middle + reach) / (1 + z2 / of)
