"""The style of plots and agreement tables: light, dark and print."""

from __future__ import annotations

_LIGHT = ("#1d5fae", "#b8321c", "#17693a", "#7a3fb0", "#946200", "#00717f")
_DARK = ("#5b9be6", "#e2674a", "#6fcf97", "#b99cf2", "#e0b040", "#4fc3d0")

_RULES = """
figure{margin:.8rem 0}
figcaption{color:var(--muted);font-size:.88rem;max-width:90ch}
.plots{display:flex;flex-wrap:wrap;gap:.6rem;margin-bottom:.3rem}
svg.plot{flex:1 1 340px;min-width:0;max-width:560px;background:var(--card);border:1px solid var(--line);
border-radius:8px;overflow:hidden;font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
Arial,sans-serif}
.plot text{fill:var(--ink)}
.plot .tick,.plot .level-label{fill:var(--muted)}.plot text.l-ceiling{fill:var(--good)}
.plot .name{fill:var(--muted);font-weight:500}
.plot line{stroke:var(--muted)}
.plot .grid{stroke:var(--line)}
.plot .logo{stroke-dasharray:2 3}
.plot .band{opacity:.16}
.plot .level{stroke-width:1.2;stroke-dasharray:5 3}
.plot rect.l-ceiling{fill:var(--good)}.plot line.l-ceiling{stroke:var(--good)}
.plot rect.l-random,.plot rect.l-trust{fill:var(--muted)}
.plot .leader{stroke-width:.7;opacity:.7}
.plot .error{fill:none;stroke-width:1.3}
.plot .series,.plot .reach{fill:none;stroke-width:1.8}
.plot circle{stroke-width:1.8}
.plot .p-best circle{fill:var(--pos);stroke:var(--pos)}.plot .p-best .error{stroke:var(--pos)}
.plot .p-close circle{fill:var(--neg);stroke:var(--neg)}.plot .p-close .error{stroke:var(--neg)}
.plot .p-behind circle{fill:var(--card);stroke:var(--muted)}.plot .p-behind .error{stroke:var(--muted)}
.plot .name-of{paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}
.plot text.p-best{font-weight:600}
.agreement th,.agreement td{padding:.28rem .34rem}
.scroll .agreement thead th{min-width:0}
.agreement tbody th,.agreement tfoot th{min-width:8rem}
.below{display:block;color:var(--muted);font-size:.74rem;line-height:1.2;font-weight:400}
.badge{display:inline-block;font-size:.7rem;font-weight:500;color:var(--muted);border:1px solid var(--line);
border-radius:4px;padding:0 .3rem;white-space:nowrap}
.agreement tfoot th{font-weight:400;color:var(--muted)}
.notes{padding-left:1.2rem;max-width:90ch}
.notes li{margin:.15rem 0}
.notes .grave{font-weight:600}
@media print{svg.plot{max-width:48%;break-inside:avoid}figure{break-inside:avoid}
.agreement th,.agreement td{padding:1pt 2.5pt;font-size:7pt}.below{font-size:5.5pt}.badge{font-size:5.5pt}
.agreement tbody th,.agreement tfoot th{min-width:0}.agreement tfoot{display:table-row-group}}
"""


def _series(colours: tuple[str, ...]) -> str:
    return ";".join(f"--s{i}:{colour}" for i, colour in enumerate(colours, 1))


def _colour_rules() -> str:
    return "".join(
        f".plot .s{i} circle{{fill:var(--s{i});stroke:var(--s{i})}}.plot .s{i} .error,.plot path.s{i},"
        f".plot line.s{i}{{stroke:var(--s{i})}}.plot text.s{i}{{fill:var(--s{i});font-weight:600}}"
        for i in range(1, len(_LIGHT) + 1)
    )


PLOT_CSS = (
    f":root{{{_series(_LIGHT)}}}@media screen and (prefers-color-scheme:dark){{:root{{{_series(_DARK)}}}}}"
    + _RULES
    + _colour_rules()
)
