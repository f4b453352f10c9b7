"""How figures are written. Nothing else in the package formats a number."""

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10

from tokensearch.stats.interval import Interval

BARS = "▁▂▃▄▅▆▇█"
NONE = "-"  # what a table shows where there is nothing

# An interval of a ratio narrower than this gets a third decimal, or both ends would read the same.
_NARROW_RATIO = 0.01


def plain(words: str) -> str:
    r"""Text of a file as it may be shown: what moves a cursor, colours or turns it is spelled out.

    That is all that is not printable in Unicode: controls, new lines, marks that turn the direction
    of writing, halves of characters.

    >>> print(plain("demo"), plain("a\x1b[31mb\r\n"), plain("\u202eevil"))
    demo a\x1b[31mb\r\n \u202eevil
    """
    if words.isprintable():
        return words
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in words)


def three_digits(value: float) -> str:
    """Three significant digits, without an exponent.

    >>> three_digits(4), three_digits(39.96), three_digits(1234.5), three_digits(0)
    ('4.00', '40.0', '1234', '0')
    """
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}") if abs(value) < 1000 else value
    decimals = max(0, 2 - floor(log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"


def ms(value_ms: float) -> str:
    """A latency in the unit that suits it.

    >>> ms(4.0), ms(0.812), ms(0.9999), ms(1234.0)
    ('4.00 ms', '812 us', '1.00 ms', '1.23 s')
    """
    for unit, scale in (("us", 1e3), ("ms", 1.0)):
        digits = three_digits(value_ms * scale)
        if float(digits) < 1000:
            return f"{digits} {unit}"
    return f"{three_digits(value_ms / 1e3)} s"


def signed_ms_interval(change: Interval) -> str:
    """A change of a latency with its interval, all in the unit and to the digit of the largest.

    >>> signed_ms_interval(Interval(-14.57, -15.4, -13.8))
    '-14.6 ms [-15.4, -13.8]'
    >>> signed_ms_interval(Interval(0, -0.1, 0.2))
    '+0 us [-100, +200]'
    """
    figures = (change.value, change.low, change.high)
    largest = max(map(abs, figures))
    scale, unit = (1e3, "us") if 0 < largest < 0.9995 else (1.0, "ms")
    decimals = max(0, 2 - floor(log10(largest * scale))) if largest else 0
    value, low, high = (f"{figure * scale:+z.{decimals}f}" for figure in figures)
    return f"{value} {unit} [{low}, {high}]"


def align_ms(value_ms: float, whole_ms: float) -> str:
    """A change among others that are parts of one whole, without unit: four digits of the whole.

    >>> align_ms(-0.0786, whole_ms=64.4), align_ms(0.5, whole_ms=4.3)
    ('-0.08', '+0.500')
    """
    decimals = max(0, 3 - floor(log10(whole_ms)))
    return f"{value_ms:+z.{decimals}f}"


def percent(share: float) -> str:
    """A share of 1 as a percentage.

    >>> percent(0.9731), percent(1)
    ('97.3 %', '100.0 %')
    """
    return f"{100 * share:z.1f} %"


def signed_percent(share: float) -> str:
    """A change as a percentage of a whole.

    >>> signed_percent(-0.226), signed_percent(0.001)
    ('-22.6 %', '+0.1 %')
    """
    return f"{100 * share:+z.1f} %"


def percent_interval(share: Interval) -> str:
    """A share with its interval.

    >>> percent_interval(Interval(0.973, 0.965, 0.98))
    '97.3 % [96.5, 98.0]'
    """
    return f"{percent(share.value)} [{100 * share.low:z.1f}, {100 * share.high:z.1f}]"


def points(difference: float) -> str:
    """A difference of two shares, without sign.

    >>> points(-0.0084), points(0.01)
    ('0.8 points', '1.0 points')
    """
    return f"{100 * abs(difference):.1f} points"


def signed_points_interval(difference: Interval) -> str:
    """A difference of two shares with its interval.

    >>> signed_points_interval(Interval(-0.008, -0.014, -0.002))
    '-0.8 points [-1.4, -0.2]'
    """
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:+z.1f} points [{low:+z.1f}, {high:+z.1f}]"


def signed_points(difference: Interval) -> str:
    """The same in a column of points.

    >>> signed_points(Interval(-0.008, -0.014, -0.002))
    '-0.8 [-1.4, -0.2]'
    """
    return signed_points_interval(difference).replace(" points", "")


def points_interval(difference: Interval) -> str:
    """A difference whose direction the sentence has named: the interval is in that direction.

    >>> points_interval(Interval(0.008, 0.002, 0.014))
    '0.8 points [0.2, 1.4]'
    """
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:z.1f} points [{low:z.1f}, {high:z.1f}]"


def ratio(value: float) -> str:
    """A multiple of the baseline.

    >>> ratio(0.4837)
    '0.48x'
    """
    return f"{value:.2f}x"


def ratio_interval(value: Interval) -> str:
    """A multiple of the baseline with its interval.

    >>> ratio_interval(Interval(0.48, 0.47, 0.49)), ratio_interval(Interval(0.4812, 0.479, 0.483))
    ('0.48x [0.47, 0.49]', '0.481x [0.479, 0.483]')
    """
    decimals = 3 if value.high - value.low < _NARROW_RATIO else 2
    return f"{value.value:.{decimals}f}x [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"


def count(number: int, thing: str = "") -> str:
    """A number of things.

    >>> count(1, "image"), count(12345, "image"), count(2, "pass"), count(3, "policy"), count(7)
    ('1 image', '12,345 images', '2 passes', '3 policies', '7')
    """
    if not thing or number == 1:
        return f"{number:,} {thing}".rstrip()
    if thing.endswith("cy"):
        return f"{number:,} {thing.removesuffix('y')}ies"
    return f"{number:,} {thing}{'es' if thing.endswith('s') else 's'}"


def duration(seconds: float) -> str:
    """How long something took.

    >>> duration(0.42), duration(59.7), duration(185), duration(3725)
    ('0.4 s', '1 min 00 s', '3 min 05 s', '1 h 02 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(batch: int, median_ms: float) -> str:
    """Images per second.

    >>> rate(8, 4.0)
    '2,000 images/s'
    """
    per_second = 1e3 * batch / median_ms
    return f"{round(per_second):,} images/s" if per_second >= 100 else f"{per_second:.1f} images/s"


def giga(number: float) -> str:
    """A number in billions.

    >>> giga(4.25e9)
    '4.25'
    """
    return three_digits(number / 1e9)


def gigabytes(amount: int) -> str:
    """Return an amount of memory as it is sold.

    >>> gigabytes(8 * 2**30), gigabytes(500 * 2**20)
    ('8.0 GiB', '0.5 GiB')
    """
    return f"{amount / 2**30:.1f} GiB"


def probability(p_value: float) -> str:
    """A p-value.

    >>> probability(0.0342), probability(2e-9)
    ('p = 0.034', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def cosine(value: float) -> str:
    """A cosine similarity, of which the distance from 1 counts.

    >>> cosine(0.98765)
    '0.9877'
    """
    return f"{value:.4f}"


def image_size(rows: int, columns: int | None) -> str:
    """Name the size of images.

    >>> image_size(224, None), image_size(224, 160)
    ('224 px', '224 x 160 px')
    """
    return f"{rows} px" if columns is None else f"{rows} x {columns} px"


def nats(divergence: float) -> str:
    """A divergence.

    >>> nats(0.01234), nats(1.8e-9), nats(0)
    ('0.0123 nats', '< 0.00001 nats', '0 nats')
    """
    return f"{bare_nats(divergence)} nats"


def bare_nats(divergence: float) -> str:
    """A divergence without its unit; under 0.00001 it is that of rounding.

    >>> bare_nats(0.01234), bare_nats(1.8e-9)
    ('0.0123', '< 0.00001')
    """
    return "< 0.00001" if 0 < divergence < 1e-5 else three_digits(divergence)


def strip(counts: Iterable[int], full: int) -> str:
    """One bar per block, as high as the share of tokens left; a dot where none is.

    >>> strip([196, 98, 1, 0], full=196)
    '█▄▁·'
    """
    return "".join(BARS[ceil(n / full * len(BARS)) - 1] if n else "·" for n in counts)


def short(digest: str) -> str:
    """Enough of a hash to tell two apart.

    >>> short("sha256:0123456789abcdef")
    '01234567'
    """
    return digest.partition(":")[2][:8] or digest[:8]


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([])
    ('a', 'a, b and c', 'none')
    """
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"
