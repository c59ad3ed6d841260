"""The style sheet of the page: quiet, in the system's own type, light or dark as the reader has it, and for paper."""

from bptt.report.svg.palette import CHARTS

PAGE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;color-scheme:light dark}
body{margin:0;background:var(--bptt-paper);color:var(--bptt-ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",\
Roboto,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
.skip{position:absolute;left:-999px;top:0;background:var(--bptt-paper);color:var(--bptt-ink);padding:8px 14px;z-index:1}
.skip:focus{left:0}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
header,main,footer,nav{max-width:1040px;margin:0 auto;padding:0 24px}
header{padding-top:36px}
.kind{margin:0;color:var(--bptt-quiet);font-size:14px}
h1{font-size:26px;line-height:1.25;margin:2px 0 4px;font-weight:650;overflow-wrap:anywhere}
.what{margin:0;color:var(--bptt-quiet)}
h2{font-size:20px;line-height:1.3;margin:0 0 6px;font-weight:650}
h3{font-size:16px;margin:28px 0 4px;font-weight:650;overflow-wrap:anywhere}
section{border-top:1px solid var(--bptt-line);padding:28px 0 18px}
section>p{max-width:74ch;margin:0 0 14px}
#brief{border-top:0;padding-top:22px}
a{color:var(--bptt-first);text-underline-offset:2px}
:focus-visible{outline:2px solid var(--bptt-first);outline-offset:2px}
nav ol{display:flex;flex-wrap:wrap;gap:4px 22px;list-style:none;margin:0;padding:10px 0;border-top:1px solid \
var(--bptt-line);font-size:15px}
.keys{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,220px),1fr));gap:18px 40px;margin:0 0 18px}
.keys p{margin:0}
.label{color:var(--bptt-quiet);font-size:14px}
.big{font-size:40px;line-height:1.15;font-weight:650;letter-spacing:-.01em}
.big span{font-size:18px;font-weight:400;letter-spacing:0}
.fine{color:var(--bptt-quiet);font-size:14px;overflow-wrap:anywhere}
.bar{max-width:540px;margin:0 0 20px}
.verdicts{list-style:none;margin:0;padding:0}
.verdicts li{padding:8px 0 8px 34px;position:relative;border-top:1px solid var(--bptt-grid);overflow-wrap:anywhere}
.verdicts li>.sign{position:absolute;left:0;top:9px}
.sign{display:inline-block;width:22px;height:22px;line-height:20px;text-align:center;border-radius:50%;font-weight:700;\
font-size:14px;border:1px solid var(--bptt-second);color:var(--bptt-second);print-color-adjust:exact;\
-webkit-print-color-adjust:exact}
.error>.sign,h3.error .sign{background:var(--bptt-second);color:var(--bptt-paper)}
.note>.sign,h3.note .sign{border-color:var(--bptt-first);color:var(--bptt-first)}
.fine-sign>.sign{border-color:var(--bptt-first);color:var(--bptt-first)}
.row{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:22px 40px;margin:14px 0 8px;\
align-items:start}
figure{margin:0;min-width:0}
.stack{display:grid;gap:22px;min-width:0}
.more ol{margin:0;padding-left:22px}
figure.wide{margin:14px 0 8px}
figure.wide .plate{max-width:880px}
figcaption{font-size:14px;line-height:1.45;color:var(--bptt-quiet);margin-top:6px;max-width:64ch}
figcaption strong{color:var(--bptt-ink);font-weight:600}
figcaption strong::after{content:"."}
.plate{overflow-x:auto}
details{margin-top:6px}
summary{cursor:pointer;width:max-content;color:var(--bptt-first);font-size:14px}
.scroll{overflow-x:auto;margin:6px 0 12px}
table{border-collapse:collapse;font-size:14px;line-height:1.4}
caption{text-align:left;color:var(--bptt-quiet);padding:2px 0 4px}
th,td{text-align:left;padding:4px 18px 4px 0;vertical-align:top;border-top:1px solid var(--bptt-grid);font-weight:400}
thead th{color:var(--bptt-quiet);border-top:0}
.n{text-align:right;white-space:nowrap}
.facts th{color:var(--bptt-quiet);white-space:nowrap}
.facts td{overflow-wrap:anywhere}
pre{background:var(--bptt-surface);padding:10px 12px;margin:6px 0 14px;white-space:pre-wrap;overflow-wrap:anywhere;\
border-radius:3px}
code,pre{font:14px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.missing{color:var(--bptt-quiet)}
.more{max-width:74ch;margin:8px 0 0}
.more dt{color:var(--bptt-quiet);font-size:14px}
.more dd{margin:0 0 8px}
footer{border-top:1px solid var(--bptt-line);padding:14px 24px 40px;color:var(--bptt-quiet);font-size:14px}
@media (max-width:560px){header,main,footer,nav{padding-left:16px;padding-right:16px}.big{font-size:34px}\
h1{font-size:22px}figure.wide .bptt-svg{width:640px}th,td{padding-right:12px}.facts th{white-space:normal}\
.scroll,figure.wide .plate{background:\
linear-gradient(to left,var(--bptt-paper) 40%,transparent) 100% 0/36px 100% no-repeat local,\
linear-gradient(to left,var(--bptt-line),transparent) 100% 0/14px 100% no-repeat scroll}}
@media print{@page{margin:16mm}body{font-size:10.5pt}header,main,footer,nav{max-width:none;padding-left:0;\
padding-right:0}header{padding-top:0}nav,.skip,summary{display:none}.row{grid-template-columns:1fr 1fr;gap:14px 24px}\
figure,tr,.verdicts li,.keys,section>p{break-inside:avoid}h2,h3,section>p,.kind{break-after:avoid}\
section{padding:14px 0 6px}a{color:inherit;text-decoration:none}.scroll,.plate{overflow:visible}\
figure.wide .plate{max-width:none}\
figcaption,.fine,.label,table{font-size:9pt}}
"""

STYLE = CHARTS + PAGE
