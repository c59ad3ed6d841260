"""The colours, in light and in dark, and the style sheet of every chart.

Two hues that differ for every kind of eye, shades of grey, and the scale of the maps. No state is told by colour alone:
lines also differ in their dashes, verdicts in their sign and word.
"""

from bptt.report.terminal import SCALE

LIGHT = {
    "paper": "#ffffff", "surface": "#f4f6f8", "ink": "#1f2933", "quiet": "#566370", "line": "#c3ccd5",
    "grid": "#e4e9ee", "first": "#1f5f8b", "second": "#a8470c", "blank": "#eef1f4",
}  # fmt: skip
DARK = {
    "paper": "#14181d", "surface": "#1d232a", "ink": "#e3e8ed", "quiet": "#a3afba", "line": "#4a5560",
    "grid": "#2b333c", "first": "#7cbcec", "second": "#f2a468", "blank": "#39424d",
}  # fmt: skip


def variables(palette: dict[str, str]) -> str:
    """The palette as CSS variables."""
    return "".join(f"--bptt-{name}:{colour};" for name, colour in palette.items())


def colour(at: float) -> tuple[int, int, int]:
    """The colour of the maps' scale at 0…1: red, green, blue from 0 to 255."""
    position = at * (len(SCALE) - 1)
    low = min(int(position), len(SCALE) - 2)
    red, green, blue = (round(a + (b - a) * (position - low)) for a, b in zip(SCALE[low], SCALE[low + 1], strict=True))
    return red, green, blue


# Print is always light; `screen` keeps the dark colours off the paper.
CHARTS = f"""
.bptt{{{variables(LIGHT)}}}
@media screen and (prefers-color-scheme:dark){{.bptt{{{variables(DARK)}}}}}
.bptt-svg{{display:block;overflow:visible;width:100%;height:auto;\
font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;\
font-variant-numeric:tabular-nums;print-color-adjust:exact;-webkit-print-color-adjust:exact}}
.bptt-svg text{{fill:var(--bptt-ink)}}
.bptt-svg .q{{fill:var(--bptt-quiet)}}
.bptt-svg .g{{stroke:var(--bptt-grid);fill:none}}
.bptt-svg .x{{stroke:var(--bptt-line);fill:none}}
.bptt-svg .l{{fill:none;stroke-width:1.8;stroke-linejoin:round}}
.bptt-svg .s1,.bptt-svg .s4{{stroke:var(--bptt-first)}}
.bptt-svg .s2,.bptt-svg .s5{{stroke:var(--bptt-second)}}
.bptt-svg .s3,.bptt-svg .s6{{stroke:var(--bptt-ink)}}
.bptt-svg .s2{{stroke-dasharray:6 3}}
.bptt-svg .s3{{stroke-dasharray:1.5 3}}
.bptt-svg .s4{{stroke-dasharray:8 3 2 3}}
.bptt-svg .s5{{stroke-dasharray:2 2}}
.bptt-svg .s6{{stroke-dasharray:none;stroke-width:1}}
.bptt-svg .f1,.bptt-svg .f4{{fill:var(--bptt-first);stroke:none}}
.bptt-svg .f2,.bptt-svg .f5{{fill:var(--bptt-second);stroke:none}}
.bptt-svg .f3,.bptt-svg .f6{{fill:var(--bptt-ink);stroke:none}}
.bptt-svg .band{{opacity:.18}}
.bptt-svg .r{{stroke:var(--bptt-quiet);fill:none;stroke-dasharray:4 3}}
.bptt-svg .m{{stroke:var(--bptt-second);fill:none;stroke-width:1.4}}
.bptt-svg .t2{{fill:var(--bptt-second)}}
.bptt-svg .h{{paint-order:stroke;stroke:var(--bptt-paper);stroke-width:4px}}
.bptt-svg .t1{{fill:var(--bptt-first)}}
.bptt-svg .z{{fill:var(--bptt-blank)}}
.bptt-svg .o{{fill:none;stroke:currentColor}}
.bptt-svg .p{{fill:var(--bptt-paper)}}
.bptt-svg .b{{font-weight:600}}
.bptt-svg image{{image-rendering:pixelated}}
"""
