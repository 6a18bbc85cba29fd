"""The style of a report: legible from 360 pixels on, in light and dark, and in print."""

CSS = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --page: #ffffff; --card: #f6f8fa;
  --line: #d0d7de; --link: #0550ae; --bar: #0072b2; --blue: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9da7b1; --page: #0d1117; --card: #161b22;
  --line: #3d444d; --link: #79c0ff; --bar: #56b4e9; --blue: #3a9de0; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0 auto; max-width: 70rem; padding: 0 1rem 3rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
header { border-bottom: 3px solid var(--bar); margin-bottom: 1.5rem; padding: 1.5rem 0 .75rem; }
h1 { font-size: clamp(1.4rem, 5vw, 2rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0 .75rem; max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
main:focus { outline: none; }
.skip { position: absolute; left: -999rem; top: 0; padding: .5rem 1rem; background: var(--page); z-index: 1; }
.skip:focus { left: 1rem; }
nav { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
nav h2 { font-size: 1rem; margin: 0 0 .25rem; }
nav ol { columns: 15rem; margin: 0; padding-left: 1.5rem; }
nav li { break-inside: avoid; padding: .15rem 0; }
.soft, figcaption, caption, footer { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem;
  min-width: min(100%, 24rem); }
caption { text-align: left; padding-bottom: .4rem; position: sticky; left: 0;
  max-width: min(46rem, calc(100vw - 2rem)); }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; }
th:first-child, td:first-child { padding-left: 0; }
thead th { border-bottom: 2px solid var(--soft); white-space: nowrap; vertical-align: bottom; }
tbody th, tbody td { white-space: nowrap; }
tbody th { font-weight: 600; }
.number { text-align: right; }
.text { display: inline-block; min-width: 12rem; max-width: 40rem; white-space: normal; }
.text .soft { font-weight: 400; display: block; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  max-width: 34rem; break-inside: avoid; }
figure.film { max-width: none; margin: 1rem 0; }
svg, video, img { display: block; width: 100%; height: auto; }
svg { fill: currentColor; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif !important; }
figcaption { margin-top: .5rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: .75rem 1.5rem;
  margin: 1rem 0; }
dt { color: var(--soft); font-size: .9rem; }
dd { margin: 0; font-weight: 600; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; overflow-x: auto;
  padding: .75rem 1rem; margin: .75rem 0; white-space: pre-wrap; }
code { font: .9rem/1.5 ui-monospace, "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace; }
details { margin: .75rem 0; }
summary { cursor: pointer; padding: .25rem 0; color: var(--link); }
footer { border-top: 1px solid var(--line); margin-top: 3rem; }
@media print {
  :root { color-scheme: light; --text: #000; --soft: #333; --page: #fff; --card: #fff; --line: #999; --link: #000;
    --bar: #000; --blue: #0072b2; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .skip, video { display: none; }
  .scroll { overflow: visible; }
  .figures { grid-template-columns: 1fr 1fr; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""
