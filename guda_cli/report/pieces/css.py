"""The report's style sheet: light and dark, phone and print, and a diverging ramp legible in both."""

from __future__ import annotations

STEPS = 9
LIGHT = {"neutral": "#f4f4f1", "p": "#b8321c", "n": "#1d5fae"}
DARK = {"neutral": "#262a30", "p": "#e2674a", "n": "#5b9be6"}


def mix(first: str, second: str, share: float) -> str:
    """The colour a ``share`` of the way from the first hex colour to the second."""
    pairs = zip(_channels(first), _channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _unit(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _unit(colour: str) -> list[float]:
    return [c / 255 for c in _channels(colour)]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours (WCAG 2), 1 to 21."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, colour))


def ramp(scheme: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Class name -> (background, ink) for every step of both signs, and ``h0`` for zero."""
    steps = {"h0": scheme["neutral"]}
    for sign in "pn":
        for step in range(1, STEPS + 1):
            steps[f"h{sign}{step}"] = mix(scheme["neutral"], scheme[sign], step / STEPS)
    return {name: (colour, ink_on(colour)) for name, colour in steps.items()}


def heat_class(value: float, limit: float) -> str:
    """The ramp's class for a value, saturating at ``limit``."""
    step = min(STEPS, round(abs(value) / limit * STEPS)) if limit > 0 else 0
    return f"h{'p' if value > 0 else 'n'}{step}" if step else "h0"


def _ramp_rules(scheme: dict[str, str]) -> str:
    return "".join(f".{k}{{background:{back};color:{ink}}}" for k, (back, ink) in ramp(scheme).items())


_VARIABLES_LIGHT = (
    "--page:#f6f6f3;--card:#ffffff;--ink:#1c1e21;--muted:#5a6068;--line:#d9dbd6;"
    "--pos:#b8321c;--neg:#1d5fae;--good:#17693a;--bad:#a3201a;--edge:#b9bdb6;--note:#fff4d6;--note-ink:#4f3b00"
)
_VARIABLES_DARK = (
    "--page:#15171a;--card:#1e2125;--ink:#e8e9ea;--muted:#a4abb3;--line:#3a3f46;"
    "--pos:#e2674a;--neg:#5b9be6;--good:#6fcf97;--bad:#ff8a80;--edge:#596069;--note:#3b3215;--note-ink:#f6e3ad"
)

_BASE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
main{max-width:1120px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.1rem;font-weight:600;color:var(--muted);margin:0 0 .4rem}
h2{font-size:1.25rem;margin:2.4rem 0 .5rem}
h3{font-size:1rem;margin:0;line-height:1.3}
p{margin:.4rem 0;max-width:75ch}
a{color:var(--neg)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.86em}
.lead{font-size:1.45rem;line-height:1.35;font-weight:600;margin:.2rem 0 .8rem}
.muted{color:var(--muted)}
.small{font-size:.88rem}
.facts{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:1rem 0;padding:.7rem 1rem;background:var(--card);
border:1px solid var(--line);border-radius:8px}
.facts div{display:flex;flex-direction:column}
.facts dt{font-size:.75rem;color:var(--muted)}
.facts dd{margin:0}
nav{font-size:.92rem}
nav a{margin-right:1.1rem;white-space:nowrap}
.note{background:var(--note);color:var(--note-ink);padding:.6rem 1rem;border-radius:8px;margin:.8rem 0}
.note ul{margin:.2rem 0;padding-left:1.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:.9rem;align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;min-width:0}
.others .card{content-visibility:auto;contain-intrinsic-size:auto 300px}
.intro{margin-bottom:1.1rem}
.intro .small{max-width:100ch}
.told summary{font-weight:400;font-size:.88rem}
.told{margin:.2rem 0}
.card header{display:flex;gap:.8rem;align-items:flex-start;margin-bottom:.5rem}
.card header>div{min-width:0}
.card p{margin:.1rem 0}
.answer{font-weight:600}
img{display:block;object-fit:contain;background:var(--line);box-shadow:0 0 0 1px var(--edge)}
img.crisp{image-rendering:pixelated}
img.thumb{width:96px;height:96px;border-radius:4px;flex:none}
.instances{display:grid;grid-template-columns:repeat(auto-fill,minmax(5.4rem,1fr));gap:.6rem .5rem;
list-style:none;margin:.3rem 0 .2rem;padding:0;font-size:.75rem;line-height:1.25}
.instances img{margin:1px 1px .2rem}
img.beside{width:64px;height:64px;border-radius:3px}
img.map{width:100%;max-width:128px;aspect-ratio:1;border-radius:3px}
.instances li{display:flex;flex-direction:column;min-width:0}
.instance-name{font-weight:500}
img.instance{width:64px;height:64px;border-radius:3px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);font-size:.88rem;padding-bottom:.3rem}
th,td{padding:.28rem .6rem;text-align:left;vertical-align:top}
th{font-weight:600}
thead th{font-size:.8rem;color:var(--muted);font-weight:500;
border-bottom:1px solid var(--line);vertical-align:bottom}
tbody tr+tr>*{border-top:1px solid var(--line)}
tfoot tr>*{border-top:1px solid var(--line)}
tfoot tr:first-child>*{border-top:2px solid var(--line)}
td.num,th.num{text-align:right;white-space:nowrap}
tbody th{font-weight:500}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.5rem;
margin:.6rem 0;max-width:100%;width:fit-content;overflow-wrap:break-word}
.scroll .compact{font-size:.86rem}
.scroll .compact th{min-width:0}
.scroll .compact tbody th{min-width:9rem}
.keep{white-space:nowrap}
.scroll th.c-why{min-width:17rem}
.scroll th{min-width:6rem}
.scroll .heat th{min-width:0}
.bars{width:100%;table-layout:fixed;font-size:.9rem}
.bars th,.bars td{padding:.16rem .3rem;vertical-align:middle}
.bars tbody tr+tr>*{border-top:0}
.bars .c-group{width:27%}
.bars .c-value{width:8.6rem}
.bars .c-z{width:3.6rem}
.bars tbody th{line-height:1.2}
.wide .c-group{width:24%}
.wide .c-value{width:11rem}
svg.bar{display:block;width:100%;height:15px}
svg.bar *{vector-effect:non-scaling-stroke}
svg.bar .pos{fill:var(--pos)}
svg.bar .neg{fill:var(--neg)}
svg.bar .pale{opacity:.42}
svg.bar .zero{stroke:var(--muted);stroke-width:1}
svg.bar .error{stroke:var(--ink);stroke-width:1.5;fill:none}
.heat td{text-align:right;white-space:nowrap;font-size:.85rem;padding:.3rem .45rem}
.heat th{font-size:.82rem;white-space:nowrap}
.heat{border-collapse:separate;border-spacing:1px}
.heat tbody tr+tr>*{border:0}
.heat thead th{text-align:right;max-width:9rem;overflow:hidden;text-overflow:ellipsis}
.heat tbody th{position:sticky;left:0;background:var(--card);max-width:16rem;
overflow:hidden;text-overflow:ellipsis}
.heat .own{outline:2px solid var(--ink);outline-offset:-2px}
.dense th,.dense td{font-size:.68rem;padding:.12rem .2rem}
.even{table-layout:fixed;width:1px}
.even thead th{width:3rem}
.even thead td{width:12rem}
.turned thead th{vertical-align:bottom;max-width:none}
.turned thead th span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:12rem;overflow:hidden;
text-overflow:ellipsis}
.turned thead td{vertical-align:bottom}
.good{color:var(--good);font-weight:600}
.bad{color:var(--bad);font-weight:600}
.doubt{font-weight:600}
details{margin:.6rem 0}
summary{cursor:pointer;font-weight:600}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;
overflow-x:auto;white-space:pre-wrap}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:560px){.lead{font-size:1.2rem}th,td{padding:.25rem .4rem}.card{padding:.6rem}
.bars,.bars caption:not(.sr),.bars thead,.bars tbody{display:block}
.bars tr{display:grid;grid-template-columns:1fr auto 3.2rem}
.wide tr{grid-template-columns:1fr auto}
.bars td:nth-child(2){grid-column:1/-1;grid-row:2;padding-bottom:.5rem}
.bars thead th:nth-child(2){display:none}.bars thead th{border:0}
.bars thead tr{border-bottom:1px solid var(--line)}
.bars .c-group,.bars .c-value,.bars .c-z{width:auto}}
@media print{html{font-size:10pt}body{background:#fff}main{max-width:none;padding:0}nav{display:none}
.card,tr{break-inside:avoid}.others .card{content-visibility:visible}
h2{break-after:avoid}.cards{grid-template-columns:1fr 1fr}
.scroll{overflow:visible;border:0;padding:0}
.dense th,.dense td{font-size:4.5pt;padding:1px}tfoot{display:table-row-group}
details::details-content{content-visibility:visible;height:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def style_sheet() -> str:
    """All of the page's CSS; paper always gets the light scheme."""
    light = f":root{{color-scheme:light dark;{_VARIABLES_LIGHT}}}{_ramp_rules(LIGHT)}"
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{_VARIABLES_DARK}}}{_ramp_rules(DARK)}}}"
    return light + dark + _BASE
