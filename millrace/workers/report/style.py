"""How the page looks."""

STYLE = """
:root { color-scheme: light; --ink: #1f2937; --dim: #6b7280; --line: #e5e7eb; --paper: #ffffff; --ground: #f8fafc; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1, h2, h3, p, li { overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 30px; letter-spacing: -0.01em; }
h2.part { margin: 40px 0 8px; font-size: 20px; }
h3 { margin: 0 0 6px; font-size: 16px; }
.lead { margin: 4px 0; font-size: 17px; }
.dim { color: var(--dim); font-size: 13px; margin: 2px 0 8px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 16px 0; }
.verdict { border-left: 8px solid; }
.verdict h2 { margin: 0; font-size: 22px; }
.verdict p { margin: 4px 0 0; }
.verdict ul { margin: 10px 0 0; padding-left: 20px; }
.verdict.good { border-left-color: #047857; }
.verdict.bad { border-left-color: #b91c1c; }
.verdict.open { border-left-color: #1d4ed8; }
.verdict.invalid { border-left-color: #b45309; background: #fffbeb; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { text-align: left; border-bottom: 1px solid var(--line); padding: 6px 10px 6px 0; vertical-align: top; }
th { color: var(--dim); font-weight: 600; }
td { overflow-wrap: break-word; max-width: 26em; }
td.n { white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--dim); }
pre { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 12px; font-size: 12.5px; }
.chart { width: 100%; }
@page { size: A4; margin: 14mm 12mm; }
@media print {
  body { background: white; font-size: 12px; }
  main { padding: 0; max-width: 720px; }
  section { break-inside: avoid; padding: 10px 12px; margin: 10px 0; }
  table { font-size: 10.5px; }
  td, th { padding: 3px 6px 3px 0; }
  .scroll { overflow: visible; }
  td { max-width: 14em; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
"""
