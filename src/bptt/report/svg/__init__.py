"""Small charts as SVG: no script, no request, legible on light and on dark, and in print."""
