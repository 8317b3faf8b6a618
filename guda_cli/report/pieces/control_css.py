"""The style of what the page's script adds: controls, heads that sort, the enlarged picture."""

from __future__ import annotations

CONTROL_CSS = """
[hidden]{display:none!important}
button,input,select{font:inherit;font-size:.92rem;color:var(--ink);background:var(--card);
border:1px solid var(--edge);border-radius:6px;padding:.3rem .55rem;min-height:2.15rem}
button{cursor:pointer}
button:disabled,select:disabled{opacity:.5;cursor:default}
:focus-visible{outline:2px solid var(--neg);outline-offset:2px}
.controls{display:flex;flex-wrap:wrap;gap:.5rem .7rem;align-items:end;margin:.8rem 0;padding:.6rem 0;
background:var(--page)}
.controls label{display:flex;flex-direction:column;font-size:.75rem;color:var(--muted);min-width:0}
.controls select{max-width:13.5rem}
.controls .search{flex:1 1 12rem}
.controls output{flex:1 0 100%;font-size:.92rem;color:var(--muted)}
.others>summary,.fold>button{margin:.9rem 0}
thead button{border:0;padding:0;min-height:0;background:none;font:inherit;color:inherit;text-align:inherit}
thead button:hover{text-decoration:underline}
[aria-sort] button::after{content:" \\25B2"}
[aria-sort=descending] button::after{content:" \\25BC"}
main img[role=button]{cursor:zoom-in}
dialog{border:1px solid var(--line);border-radius:10px;padding:.8rem;background:var(--card);color:var(--ink);
max-width:96vw;max-height:96vh}
dialog::backdrop{background:rgb(0 0 0/.6)}
dialog figure{margin:0}
dialog img{width:min(90vw,76vh);height:min(90vw,76vh)}
dialog figcaption{margin:.5rem 0;max-width:min(90vw,76vh)}
dialog div{display:flex;gap:.5rem}
dialog div button:last-child{margin-left:auto}
@media screen{.folded .beyond{display:none}}
@media screen and (min-width:900px){.controls{position:sticky;top:0;z-index:2}
.cards img{scroll-margin-top:8rem}}
@media (max-width:560px){.controls label{flex:1 1 40%}
.controls .search{flex:1 1 100%}.controls select{max-width:100%}}
@media print{.controls label,.controls button,.fold>button{display:none}.controls{background:none}
thead button::after{content:none!important}}
"""
