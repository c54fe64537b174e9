"""The style sheet and the script of a report: light, printable, usable without the script."""

from __future__ import annotations

STYLE = """
:root{--ink:#1b2430;--soft:#5b6675;--line:#dfe3e8;--accent:#1f5fa8}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"PingFang SC",
"Microsoft YaHei","Noto Sans CJK SC",sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:30px;line-height:1.25;margin:0}
h2{font-size:21px;margin:44px 0 10px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:16px;margin:24px 0 8px}
p,li{max-width:76ch}
p{margin:8px 0}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:22px 0 0;padding:0}
.tiles div{border:1px solid var(--line);border-radius:8px;padding:14px 16px}
.tiles dd{margin:0;font-size:26px;font-weight:650;font-variant-numeric:tabular-nums}
.tiles dt{color:var(--soft);font-size:14px}
.tiles div{display:flex;flex-direction:column-reverse;justify-content:flex-end}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:8px 36px;align-items:start}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.45}
th,td{padding:7px 10px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
thead th{border-bottom:2px solid var(--ink);vertical-align:bottom;white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.total td,tr.total th{font-weight:650;border-top:2px solid var(--ink)}
td ul{margin:0;padding-left:16px}
td.why{min-width:22em}
td.whole{white-space:nowrap}
td.id{overflow-wrap:anywhere;min-width:6.5em;font-weight:600}
tbody th{font-weight:600}
.high{color:#9b1c1c;font-weight:650}.medium{color:#8a4b06;font-weight:650}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;text-align:inherit}
th button::after{content:" \\2195";color:#98a2b0}
th[aria-sort=ascending] button::after{content:" \\2191";color:var(--ink)}
th[aria-sort=descending] button::after{content:" \\2193";color:var(--ink)}
th button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
svg{width:100%;height:auto;max-width:640px;font-size:12px;fill:var(--ink)}
svg.bar{width:90px;display:inline-block;vertical-align:middle;margin-left:8px}
figure{margin:0}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:8px 0}
dl.facts dt{color:var(--soft)}dl.facts dd{margin:0;overflow-wrap:anywhere}
code{font-size:.92em}
@page{margin:14mm}
@media print{
body{font-size:11px}main{max-width:none;padding:0}h1{font-size:20px}h2{font-size:15px;margin-top:20px;break-after:avoid}
h3{font-size:12px;break-after:avoid}
table{font-size:9.5px}th,td{padding:3px 5px}tr,figure,.tiles div{break-inside:avoid}thead{display:table-header-group}
.tiles{grid-template-columns:repeat(4,1fr)}.tiles dd{font-size:17px}.tiles dt{font-size:10px}
.two{grid-template-columns:1fr 1fr}
th button{display:contents}
th button::after,th[aria-sort] button::after{content:""}.screen{display:none}.scroll{overflow:visible}
svg.bar{width:60px}}
"""

# In print, a browser repeats the headings of a table on every page, but leaves out boxes of buttons there.
# Each sortable table gets buttons in its headings; without the script it is the same table, in the order of the file.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if ("unsorted" in head.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || !head.classList.contains("number")
        && head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => {
        const cell = row.cells[column];
        return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
      };
      const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
        : String(a).localeCompare(String(b), document.documentElement.lang, {numeric: true});
      const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)));
      body.append(...rows);
    });
  });
}
"""
