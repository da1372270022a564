// What the pages of the gallery do. No page asks a server for anything: the data of a page are inside it, and the data of
// a run come as a script that calls separatrix.receive, because a page opened from the disk may load nothing else.
"use strict";

const separatrix = (() => {
  // ---------------------------------------------------------------- elements and texts

  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const byId = (id) => document.getElementById(id);
  const pageData = () => JSON.parse(byId("data").textContent);

  // four significant digits, as in the report
  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size >= 1e-4 && size < 1e5) return String(Number(value.toPrecision(4)));
    return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  const interval = (ends) => (ends && ends[0] !== null && ends[1] !== null ? `[${number(ends[0])}, ${number(ends[1])}]` : "–");
  function region(ends) {
    if (!ends) return "–";
    if (ends[0] === null) return ends[1] === null ? "any" : `≤ ${number(ends[1])}`;
    return ends[1] === null ? `≥ ${number(ends[0])}` : `${number(ends[0])} to ${number(ends[1])}`;
  }
  const withUnit = (text, unit) => (unit ? `${text} ${unit}` : text);
  const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
  function setting(value) {
    if (Array.isArray(value)) return value.map(setting).join(" ");
    if (typeof value === "boolean") return value ? "on" : "off";
    return value === null || value === undefined ? "none" : String(value);
  }

  const SYMBOLS = { holds: "✓", fails: "✗", undecided: "?", none: "–", failed: "!", left: "·", done: "✓" };
  const verdict = (name) => html("span", { class: `verdict ${name}` }, `${SYMBOLS[name]} ${name}`);
  function control(name) {
    if (name === null) return html("span", { class: "verdict none" }, "not run");
    if (name === "fails") return html("span", { class: "verdict none" }, "fails, as it must");
    return html("span", { class: "verdict fails" }, `✗ ${name}: shows nothing`);
  }

  // ---------------------------------------------------------------- address and data

  const address = () => new URLSearchParams(location.hash.slice(1));
  function setAddress(entries) {
    const text = new URLSearchParams(entries).toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname);
  }

  const waiting = new Map();
  const loads = new Map();
  function receive(run) {
    waiting.get(run.hash)?.(run);
  }
  function load(hash) {
    if (!/^[0-9A-Za-z]+$/.test(hash)) return Promise.reject(new Error(`${hash} is not the hash of a run.`));
    if (!loads.has(hash)) {
      loads.set(hash, new Promise((resolve, reject) => {
        waiting.set(hash, resolve);
        const missing = () => reject(new Error(`The run ${hash} is not in this gallery.`));
        document.head.append(html("script", { src: `data/${hash}.js`, onerror: missing }));
      }));
    }
    return loads.get(hash);
  }

  function field(id, label, control, extra) {
    return html("div", { class: `field ${extra || ""}` }, html("label", { for: id }, label), control);
  }
  function choice(id, options, chosen, change) {
    const list = html("select", { id, onchange: (event) => change(event.target.value) });
    for (const [value, text] of options) list.append(html("option", { value, selected: String(value) === String(chosen) }, text));
    return list;
  }
  function tick(id, label, checked, change) {
    const box = html("input", { id, type: "checkbox", onchange: (event) => change(event.target.checked) });
    box.checked = checked;
    return html("div", { class: "field check" }, box, html("label", { for: id }, label));
  }

  // ---------------------------------------------------------------- scales and plots

  function linearTicks(low, high, count) {
    const raw = (high - low) / Math.max(count, 1) || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
    const ticks = [];
    for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index += 1) ticks.push(index * step);
    return ticks.map((value) => Number(value.toPrecision(12)));
  }
  function logTicks(low, high, count) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const decades = last - first + 1;
    const ticks = [];
    if (decades < 2) {
      for (let power = first - 1; power <= last; power += 1)
        for (const factor of [1, 2, 3, 5, 7]) ticks.push(factor * 10 ** power);
      const within = ticks.filter((value) => value >= low * 0.9999 && value <= high * 1.0001);
      return within.length > 1 ? within.map((value) => Number(value.toPrecision(12))) : linearTicks(low, high, count);
    }
    const stride = Math.ceil(decades / Math.max(count, 2));
    for (let power = first; power <= last; power += stride) ticks.push(Number((10 ** power).toPrecision(12)));
    return ticks;
  }
  function tickText(value) {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential().replace("e+", "e");
    return String(value).replace("-", "−");
  }

  // Continuous axis from data to pixels.
  function continuous(low, high, log, from, to) {
    const map = log ? Math.log : (value) => value;
    const [a, b] = [map(low), map(high)];
    return (value) => from + ((map(value) - a) / (b - a || 1)) * (to - from);
  }

  // Lines with bands, or points with whiskers. Each series: {name, x, middle, low, high, whiskers}.
  function drawLines(series, options) {
    const { width, height, label, xLabel, yLabel, xLog, yLog } = options;
    const usable = (value, log) => value !== null && value !== undefined && (!log || value > 0);
    const xs = series.flatMap((one) => one.x).filter((value) => usable(value, xLog));
    const ys = series.flatMap((one) => [one.low, one.middle, one.high].flatMap((curve) => curve || []))
      .filter((value) => usable(value, yLog));
    const picture = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
    if (!xs.length || !ys.length) {
      picture.append(svg("text", { x: 10, y: 30 }, "There is no value to draw."));
      return picture;
    }
    let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    if (yLog) [y0, y1] = y0 === y1 ? [y0 / 2, y1 * 2] : [y0, y1];
    else {
      const margin = 0.05 * (y1 - y0) || 0.1 * Math.abs(y1) || 1;
      [y0, y1] = [y0 - margin, y1 + margin];
    }
    if (series.some((one) => one.whiskers)) {
      if (xLog) [x0, x1] = [x0 * (x0 / x1) ** 0.06, x1 * (x1 / x0) ** 0.06];
      else [x0, x1] = [x0 - 0.06 * (x1 - x0), x1 + 0.06 * (x1 - x0)];
    }
    if (x0 === x1) [x0, x1] = xLog ? [x0 / 2, x1 * 2] : [x0 - 0.5, x1 + 0.5];
    const yTicks = (yLog ? logTicks : linearTicks)(y0, y1, height / 55);
    const left = 34 + 6.6 * Math.max(...yTicks.map((value) => tickText(value).length));
    const frame = { left, right: width - 12, top: 10, bottom: height - 46 };
    const xTicks = (xLog ? logTicks : linearTicks)(x0, x1, (frame.right - frame.left) / 80);
    const place = {
      x: continuous(x0, x1, xLog, frame.left, frame.right),
      y: continuous(y0, y1, yLog, frame.bottom, frame.top),
    };
    for (const value of yTicks) {
      const y = place.y(value);
      picture.append(svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y, y2: y }));
      picture.append(svg("text", { x: frame.left - 6, y: y + 4, "text-anchor": "end" }, tickText(value)));
    }
    for (const value of xTicks) {
      const x = place.x(value);
      picture.append(svg("line", { class: "tick", x1: x, x2: x, y1: frame.bottom, y2: frame.bottom + 5 }));
      picture.append(svg("text", { x, y: frame.bottom + 18, "text-anchor": "middle" }, tickText(value)));
    }
    picture.append(svg("rect", { class: "frame", x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top }));
    picture.append(axisLabel(xLabel, (frame.left + frame.right) / 2, height - 8));
    picture.append(axisLabel(yLabel, 14, (frame.top + frame.bottom) / 2, true));
    for (const one of series) {
      const group = svg("g", { class: one.name });
      const point = (index, curve) => `${place.x(one.x[index]).toFixed(1)},${place.y(curve[index]).toFixed(1)}`;
      const pieces = [];
      let piece = [];
      one.x.forEach((x, index) => {
        if (usable(x, xLog) && usable(one.middle[index], yLog)) piece.push(index);
        else if (piece.length) pieces.push(piece.splice(0));
      });
      if (piece.length) pieces.push(piece);
      const bounded = (index) => one.low && usable(one.low[index], yLog) && usable(one.high[index], yLog);
      for (const indices of pieces) {
        const inside = indices.filter(bounded);
        if (!one.whiskers && inside.length > 1) {
          const outline = [...inside.map((index) => point(index, one.high)), ...inside.reverse().map((index) => point(index, one.low))];
          group.append(svg("path", { class: "band", d: `M${outline.join("L")}Z` }));
        }
        group.append(svg("path", { class: "line", d: `M${indices.map((index) => point(index, one.middle)).join("L")}` }));
        if (!one.whiskers) continue;
        for (const index of indices) {
          const [x, y] = point(index, one.middle).split(",");
          if (bounded(index))
            group.append(svg("line", { class: "whisker", x1: x, x2: x, y1: place.y(one.low[index]), y2: place.y(one.high[index]) }));
          group.append(svg("circle", { class: "dot", cx: x, cy: y, r: 3.5 }));
        }
      }
      picture.append(group);
    }
    return picture;
  }
  function axisLabel(text, x, y, upright) {
    const turn = upright ? `rotate(-90 ${x} ${y})` : null;
    return svg("text", { class: "label", x, y, "text-anchor": "middle", transform: turn }, text);
  }

  // Estimate and interval of one or two claims on a common scale with the accepted region.
  function gauge(claims) {
    const present = claims.filter((one) => one.claim && one.claim.estimate !== null && one.claim.interval &&
      one.claim.interval.every((end) => end !== null));
    if (!present.length) return "";
    const bounds = present[0].claim.threshold.filter((end) => end !== null);
    const values = [...present.flatMap((one) => [one.claim.estimate, ...one.claim.interval]), ...bounds];
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = 0.1 * (high - low) || 0.1 * Math.abs(low) || 1;
    [low, high] = [low - margin, high + margin];
    const place = (value) => `${((100 * (value - low)) / (high - low)).toFixed(2)}%`;
    const [from, to] = present[0].claim.threshold.map((end, side) => (end === null ? [low, high][side] : end));
    const height = 6 + 10 * present.length;
    const label = present.map((one) => `${one.label} ${number(one.claim.estimate)} in ${interval(one.claim.interval)}`).join("; ");
    const picture = svg("svg", { class: "gauge", height, role: "img", "aria-label": `${label}; accepted ${region(present[0].claim.threshold)}` });
    const wide = Math.max((100 * (to - from)) / (high - low), 0.8);
    picture.append(svg("rect", { class: "scale", x: 0, y: height / 2 - 0.5, width: "100%", height: 1 }));
    picture.append(svg("rect", { class: "region", x: place(from), y: 1, width: `${wide.toFixed(2)}%`, height: height - 2, rx: 2 }));
    present.forEach((one, row) => {
      const y = 8 + 10 * row;
      picture.append(svg("g", { class: one.name },
        svg("line", { x1: place(one.claim.interval[0]), x2: place(one.claim.interval[1]), y1: y, y2: y }),
        svg("circle", { cx: place(one.claim.estimate), cy: y, r: 3.2 })));
    });
    return picture;
  }

  // ---------------------------------------------------------------- the front page

  function indexPage() {
    const form = byId("filters");
    if (!form) return;
    form.hidden = false;
    const cards = [...document.querySelectorAll(".card")];
    const [topic, wanted] = [byId("topic"), byId("verdict")];
    function show() {
      let count = 0;
      for (const card of cards) {
        const fits = (!topic.value || JSON.parse(card.dataset.topics).includes(topic.value)) &&
          (!wanted.value || card.dataset.verdicts.split(" ").includes(wanted.value));
        card.hidden = !fits;
        count += fits;
      }
      const all = count === cards.length;
      byId("shown").textContent = all ? plural(count, "study", "studies") : `${count} of ${plural(cards.length, "study", "studies")}`;
      byId("nothing").hidden = count > 0;
    }
    function follow() {
      const given = address();
      topic.value = given.get("topic") || "";
      wanted.value = given.get("verdict") || "";
      if (topic.selectedIndex < 0) topic.value = "";
      if (wanted.selectedIndex < 0) wanted.value = "";
      show();
    }
    form.addEventListener("change", () => {
      setAddress([["topic", topic.value], ["verdict", wanted.value]].filter(([, value]) => value));
      show();
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      setAddress([]);
      follow();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", follow);
    follow();
  }

  // ---------------------------------------------------------------- a run without a report

  function runPage() {
    const data = pageData();
    async function show() {
      const hash = address().get("run");
      if (hash === null) return;
      const place = byId("run");
      try {
        const run = await load(hash);
        document.title = `Run ${hash.slice(0, 8)} · Separatrix`;
        place.replaceChildren(...runContent(run, data).flat());
      } catch (error) {
        place.replaceChildren(html("h1", {}, "No such run"), html("p", { class: "notice" }, error.message));
      }
    }
    window.addEventListener("hashchange", show);
    show();
  }
  function runContent(run, data) {
    const rows = Object.entries(run.settings).map(([name, value]) => {
      const about = data.settings[name] || {};
      return html("tr", {}, html("th", { scope: "row" }, html("code", {}, name)),
        html("td", { "data-label": "Value" }, withUnit(setting(value), about.unit)),
        html("td", { "data-label": "Meaning" }, about.help || ""));
    });
    const link = run.report ? html("p", {}, html("a", { href: run.page }, "Full report of this run")) : html("div", { class: "notice" },
      html("p", {}, "This run has no report yet. This command judges its claims again, draws its figures and writes the report (add --out FOLDER if the runs do not lie in the folder runs); then build the gallery again:"),
      html("pre", {}, html("code", {}, `separatrix report ${run.hash}`)));
    return [
      html("p", { class: "kicker" }, run.study),
      html("h1", {}, `Run ${run.hash}`),
      html("p", { class: "muted" }, [run.description, `begun ${run.created.slice(0, 16).replace("T", " ")}`].filter(Boolean).join("; ")),
      run.sweeps.map((name) => html("p", {}, "A cell of ", html("a", { href: `${name}.html` }, name))),
      ...run.warnings.map((text) => html("p", { class: "notice" }, text)),
      link,
      html("h2", {}, "Verdicts"), claimTable(run.claims),
      html("p", {}, html("a", { href: `compare.html#a=${run.hash}` }, "Compare with another run")),
      html("h2", {}, "Settings"),
      table(["Setting", "Value", "Meaning"], rows),
      html("h2", {}, "How to reproduce"),
      html("pre", {}, html("code", {}, run.command)),
      html("p", { class: "muted" }, `${run.device}. ${Object.entries(run.versions).map((pair) => pair.join(" ")).join(", ")}.`),
    ];
  }
  function table(headings, rows, caption) {
    return html("table", { class: "stack" }, caption ? html("caption", {}, caption) : null,
      html("thead", {}, html("tr", {}, headings.map((text) => html("th", { scope: "col" }, text)))), html("tbody", {}, rows));
  }
  function claimTable(claims) {
    const rows = claims.map((claim) => html("tr", {},
      html("th", { scope: "row" }, claim.id),
      html("td", {}, claim.statement),
      html("td", { class: "num", "data-label": "Estimate" }, withUnit(number(claim.estimate), claim.unit)),
      html("td", { class: "num", "data-label": "Interval" }, interval(claim.interval)),
      html("td", { class: "num", "data-label": "Accepted" }, region(claim.threshold)),
      html("td", { "data-label": "On a scale" }, gauge([{ name: "only", label: "estimate", claim }])),
      html("td", { "data-label": "Verdict" }, verdict(claim.verdict)),
      html("td", { "data-label": "Control" }, control(claim.control_verdict))));
    return table(["Claim", "Statement", "Estimate", "Interval", "Accepted", "", "Verdict", "Control"], rows);
  }

  // ---------------------------------------------------------------- comparing two runs

  function comparePage() {
    const data = pageData();
    const lists = { a: byId("a"), b: byId("b") };
    let runs = null;
    let turn = 0;
    const chosen = { curve: null, log: null };

    function follow() {
      const given = address();
      const offered = [...lists.a.options].map((option) => option.value);
      // the list begins with the newest run, which is compared with the one before it
      const b = given.get("b") || offered.find((hash) => hash !== given.get("a")) || offered[0];
      const a = given.get("a") || offered.find((hash) => hash !== b) || offered[0];
      show(a, b);
    }
    function choose(a, b) {
      setAddress([["a", a], ["b", b]]);
      show(a, b);
    }
    async function show(a, b) {
      const mine = (turn += 1);
      try {
        const pair = await Promise.all([load(a), load(b)]);
        if (mine !== turn) return; // another choice was made meanwhile
        runs = pair;
      } catch (error) {
        if (mine !== turn) return;
        byId("summary").textContent = error.message;
        byId("comparison").hidden = true;
        return;
      }
      runs.forEach((run, side) => {
        const list = lists[side ? "b" : "a"];
        if (![...list.options].some((option) => option.value === run.hash))
          list.append(html("option", { value: run.hash }, `${run.hash} · ${run.description}`));
        list.value = run.hash;
      });
      draw();
    }
    const heading = (side) => html("span", { class: side ? "second" : "first" }, `${"AB"[side]}: `,
      html("a", { href: runs[side].page }, runs[side].hash.slice(0, 8)));

    function draw() {
      const [a, b] = runs;
      const names = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])];
      const differing = names.filter((name) => JSON.stringify(a.settings[name]) !== JSON.stringify(b.settings[name]));
      byId("settings").replaceChildren(differing.length ? table(["Setting", heading(0), heading(1), "Meaning"], differing.map((name) => {
        const about = data.settings[name] || {};
        const shown = (run) => (name in run.settings ? withUnit(setting(run.settings[name]), about.unit) : "–");
        return html("tr", {}, html("th", { scope: "row" }, html("code", {}, name)), html("td", { "data-label": "A" }, shown(a)),
          html("td", { "data-label": "B" }, shown(b)), html("td", { "data-label": "Meaning" }, about.help || ""));
      })) : html("p", { class: "muted" }, a.hash === b.hash ? "A and B are the same run." : "None: the runs differ in controls, source or input files."));
      const ids = [...new Set([...a.claims, ...b.claims].map((claim) => claim.id))];
      let different = 0;
      byId("verdicts").replaceChildren(table(["Claim", "Statement", heading(0), heading(1), "A above, B below; accepted region shaded"], ids.map((id) => {
        const pair = runs.map((run) => run.claims.find((claim) => claim.id === id));
        const differs = pair[0]?.verdict !== pair[1]?.verdict;
        different += differs;
        return html("tr", { class: differs ? "differs" : null }, html("th", { scope: "row" }, id),
          html("td", {}, (pair[0] || pair[1]).statement),
          pair.map((claim, side) => html("td", { "data-label": "AB"[side] }, claim ? measured(claim) : "not a claim of this run")),
          html("td", { "data-label": "On a scale" }, gauge([{ name: "first", label: "A", claim: pair[0] }, { name: "second", label: "B", claim: pair[1] }])));
      })));
      byId("summary").textContent = `${plural(differing.length, "setting differs", "settings differ")}; ` +
        `${plural(different, "verdict differs", "verdicts differ")} of ${ids.length}.`;
      byId("comparison").hidden = false;
      drawCurves();
    }
    function measured(claim) {
      return html("div", {}, verdict(claim.verdict), html("br"),
        html("span", { class: "num" }, `${withUnit(number(claim.estimate), claim.unit)} ${interval(claim.interval)}`), html("br"),
        html("span", { class: "muted" }, "control "), control(claim.control_verdict));
    }
    const key = (panel) => `${panel.experiment} · ${panel.quantity}`;

    function drawCurves() {
      const place = byId("curves");
      const panels = new Map();
      runs.forEach((run, side) => run.curves.forEach((panel) => {
        if (!panels.has(key(panel))) panels.set(key(panel), [null, null]);
        panels.get(key(panel))[side] = panel;
      }));
      const form = byId("curve-choices");
      if (!panels.size) {
        form.replaceChildren();
        const without = runs.filter((run) => !run.report).map((run) => `separatrix report ${run.hash}`);
        place.replaceChildren(html("p", { class: "muted" }, without.length
          ? "Curves are prepared for runs that have a report. These commands make the reports that are missing (with --out FOLDER if the runs do not lie in the folder runs); then build the gallery again:"
          : "These runs recorded nothing along time."), without.length ? html("pre", {}, html("code", {}, without.join("\n"))) : "");
        return;
      }
      if (!panels.has(chosen.curve)) {
        const common = [...panels].filter(([, pair]) => pair[0] && pair[1]).map(([name]) => name);
        const telling = ["strength", "loss", "error"];
        const rank = (name) => (telling.findIndex((word) => name.endsWith(` ${word}`)) + telling.length + 1) % (telling.length + 1);
        chosen.curve = (common.length ? common : [...panels.keys()]).reduce((best, name) => (rank(name) < rank(best) ? name : best));
        chosen.log = null;
      }
      const pair = panels.get(chosen.curve);
      const values = pair.flatMap((panel) => (panel ? panel.lines.flatMap((line) => line.median) : [])).filter((value) => value !== null);
      const positive = values.length > 0 && Math.min(...values) > 0;
      const log = positive && (chosen.log ?? Math.max(...values) > 1000 * Math.min(...values));
      form.replaceChildren(
        field("curve", "Experiment · quantity", choice("curve", [...panels].map(([name, both]) =>
          [name, both[0] && both[1] ? name : `${name} (only ${both[0] ? "A" : "B"})`]), chosen.curve, (name) => {
          [chosen.curve, chosen.log] = [name, null];
          drawCurves();
          byId("curve").focus();
        }), "wide"),
        positive ? tick("log", "logarithmic vertical axis", log, (on) => {
          chosen.log = on;
          drawCurves();
          byId("log").focus();
        }) : "");
      const labels = [...new Set(pair.flatMap((panel) => (panel ? panel.lines.map((line) => line.label) : [])))];
      const figures = labels.map((label) => {
        const series = [];
        pair.forEach((panel, side) => {
          const line = panel?.lines.find((one) => one.label === label);
          if (line) series.push({ name: side ? "second" : "first", x: panel.time, low: line.low, middle: line.median, high: line.high });
        });
        const panel = pair[0] || pair[1];
        const title = label || panel.quantity;
        const width = Math.min(Math.max((place.clientWidth || 700) / (labels.length > 1 && place.clientWidth > 830 ? 2 : 1) - 10, 280), 736);
        return html("figure", {}, html("h3", {}, title), drawLines(series, {
          width, height: 260, yLog: log, xLog: false,
          label: `${panel.quantity}, ${title}, against time; last median ${series.map((one) => `${one.name === "first" ? "A" : "B"} ${number(one.middle.at(-1))}`).join(", ")}`,
          xLabel: `time [${panel.time_unit || "as recorded"}]`, yLabel: panel.unit ? `${panel.quantity} [${panel.unit}]` : panel.quantity,
        }));
      });
      const members = pair.map((panel, side) => {
        if (!panel) return null;
        const diverged = runs[side].experiments.find((one) => one.name === panel.experiment)?.diverged;
        return `${"AB"[side]} ${plural(panel.members, "member", "members")}${diverged ? `, ${diverged} diverged` : ""}`;
      }).filter(Boolean);
      place.replaceChildren(
        html("ul", { class: "legend" }, runs.map((run, side) => html("li", { class: side ? "second" : "first" },
          svg("svg", { class: "plot", viewBox: "0 0 30 20", "aria-hidden": "true" }, svg("g", { class: side ? "second" : "first" },
            svg("path", { class: "line", d: "M1,10L29,10" }))), `${"AB"[side]}: ${run.hash.slice(0, 8)}`))),
        html("div", { class: "multiples" }, figures),
        html("p", { class: "muted" }, `Medians over members, with the central half shaded; ${members.join("; ")}. Values that are not finite are left out.`));
    }

    for (const list of Object.values(lists)) list.addEventListener("change", () => choose(lists.a.value, lists.b.value));
    byId("swap").addEventListener("click", () => choose(lists.b.value, lists.a.value));
    byId("pair").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => address().has("a") || address().has("b") ? follow() : null);
    onResize(byId("curves"), () => runs && drawCurves());
    if (lists.a.options.length) follow();
    else byId("summary").textContent = "There are no runs to compare.";
  }
  function onResize(place, redraw) {
    let width = place.clientWidth;
    window.addEventListener("resize", () => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      redraw();
    });
  }

  // ---------------------------------------------------------------- the phase diagram of a sweep

  const VERDICTS = { 1: "holds", 0: "undecided", "-1": "fails", "-2": "none" };
  const STATUS = { 1: "done", 2: "failed", 0: "left" };
  const WORDS = { none: "not available", failed: "failed", left: "not computed yet", done: "done" };
  const word = (name) => WORDS[name] || name;
  // A control has done its duty when it fails: what is good has the same colour in both diagrams.
  const CONTROLS = {
    fails: { kind: "holds", symbol: "✗", text: "fails, as it must" },
    undecided: { kind: "undecided", symbol: "?", text: "undecided: shows nothing" },
    holds: { kind: "fails", symbol: "✓", text: "holds: shows nothing" },
    none: { kind: "none", symbol: "–", text: "not available" },
  };
  // viridis, which also orders by lightness
  const COLOURS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  function colour(share) {
    const at = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
    const index = Math.min(Math.floor(at), COLOURS.length - 2);
    return `rgb(${COLOURS[index].map((low, channel) => Math.round(low + (at - index) * (COLOURS[index + 1][channel] - low))).join(" ")})`;
  }

  // Where the entries of a dimension lie between two pixels: a number at its value, a text in a band of its own.
  // Returns the bands in order, and where any number lies (null for texts).
  function bands(dim, from, to) {
    const count = dim.values.length;
    const order = [...dim.values.keys()];
    const place = dim.log ? Math.log : (value) => value;
    let edges = order.map((index) => index / count).concat(1);
    let centres = order.map((index) => (index + 0.5) / count);
    let at = null;
    if (dim.numeric && count > 1) {
      order.sort((a, b) => dim.values[a] - dim.values[b]);
      const points = order.map((index) => place(dim.values[index]));
      const gaps = points.slice(1).map((point, index) => point - points[index]);
      if (Math.min(...gaps) > 0) {
        const outer = [points[0] - gaps[0] / 2, ...gaps.map((gap, index) => points[index] + gap / 2), points[count - 1] + gaps[count - 2] / 2];
        const share = (point) => (point - outer[0]) / (outer[count] - outer[0]);
        [edges, centres] = [outer.map(share), points.map(share)];
        at = (value) => pixel(share(place(value)));
      }
    }
    const pixel = (share) => from + share * (to - from);
    const all = order.map((index, rank) => ({ index, from: pixel(edges[rank]), to: pixel(edges[rank + 1]), centre: pixel(centres[rank]) }));
    return { all, at };
  }

  // Labels of an axis: every entry if there is room for all, otherwise round numbers or, for texts, as many as fit.
  function labels(dim, { all, at }, text, room, most) {
    const every = all.map((band) => ({ place: band.centre, text: text(dim.values[band.index]) }));
    const gap = (list) => Math.min(Infinity, ...list.slice(1).map((label, index) => Math.abs(label.place - list[index].place)));
    const width = Math.max(...every.map((label) => room(label.text)));
    if (gap(every) >= width) return every;
    if (at !== null) {
      const values = all.map((band) => dim.values[band.index]);
      const ticks = (dim.log ? logTicks : linearTicks)(values[0], values.at(-1), most);
      if (ticks.length > 1) return ticks.map((value) => ({ place: at(value), text: text(value) }));
    }
    const kept = [];
    for (const label of every) if (!kept.length || Math.abs(label.place - kept.at(-1).place) >= width) kept.push(label);
    return kept;
  }

  function sweepPage() {
    const data = pageData();
    const quantities = new Map(data.quantities.map((one) => [one.id, one]));
    const claims = new Map(data.claims.map((one) => [one.id, one.statement]));
    const state = { quantity: data.quantities[0].id, x: null, y: null, at: {}, log: null, cell: null, pinned: null };
    for (const name of Object.keys(data.dims)) state.at[name] = 0;
    let grid = [];
    let touched = null;

    const dimensionText = (name, index) => withUnit(setting(data.dims[name].values[index]), data.dims[name].unit);
    const title = (name) => (data.dims[name].unit ? `${name} [${data.dims[name].unit}]` : name);
    const current = () => quantities.get(state.quantity);
    const labelOf = (quantity) => (quantity.id === "estimate" ? `Estimate of ${data.dims.claim.values[state.at.claim]}` : quantity.label);
    const quantityTitle = (quantity) => (quantity.unit ? `${labelOf(quantity)} [${quantity.unit}]` : labelOf(quantity));
    // claims have different units, so their estimates never share a scale of colours
    const drawable = (quantity) => quantity.dims.filter((name) => name !== "claim" || quantity.kind === "verdict");

    function settle() {
      const dims = drawable(current());
      // what varies, axes first; chance is no axis to look at as long as there is another
      const rank = (name) => (data.dims[name].values.length < 2 ? 3 : name === "seed" ? 2 : data.axes.includes(name) ? 0 : 1);
      const preferred = [...dims].sort((a, b) => rank(a) - rank(b));
      if (!dims.includes(state.x)) state.x = preferred.find((name) => name !== state.y);
      if (!dims.includes(state.y) || state.y === state.x) state.y = preferred.find((name) => name !== state.x) || null;
    }
    function position(dims, indices) {
      return dims.reduce((sum, name) => sum * data.dims[name].values.length + indices[name], 0);
    }
    const indicesAt = (column, row) => ({ ...state.at, [state.x]: column, ...(state.y === null ? {} : { [state.y]: row }) });
    const read = (quantity, indices, part = "values") => quantity[part] && quantity[part][position(quantity.dims, indices)];
    const cellOf = (indices) => position(data.axes, indices);
    const statusOf = (indices) => STATUS[read(quantities.get("status"), indices)];

    function follow() {
      const given = address();
      if (quantities.has(given.get("show"))) state.quantity = given.get("show");
      for (const side of ["x", "y"]) if (given.get(side) in data.dims) state[side] = given.get(side);
      for (const [name, dim] of Object.entries(data.dims)) {
        const index = Number(given.get(`at.${name}`));
        if (Number.isInteger(index) && index >= 0 && index < dim.values.length) state.at[name] = index;
      }
      settle();
    }
    function remember() {
      const rest = current().dims.filter((name) => name !== state.x && name !== state.y && state.at[name] > 0);
      setAddress([["show", state.quantity], ["x", state.x], ...(state.y === null ? [] : [["y", state.y]]),
        ...rest.map((name) => [`at.${name}`, state.at[name]])]);
    }
    function change(update, id) {
      update();
      settle();
      remember();
      draw();
      byId(id)?.focus(); // the list was made anew
    }

    function drawControls() {
      const quantity = current();
      const dims = drawable(quantity).map((name) => [name, name]);
      const swap = (side, name) => {
        const other = side === "x" ? "y" : "x";
        if (state[other] === name) state[other] = state[side];
        state[side] = name;
      };
      const form = byId("choices");
      const fields = [field("quantity", "Show", choice("quantity", data.quantities.map((one) => [one.id, one.label]), state.quantity,
        (id) => change(() => { [state.quantity, state.log] = [id, null]; }, "quantity")))];
      if (dims.length > 1) {
        fields.push(field("x", "Horizontal axis", choice("x", dims, state.x, (name) => change(() => swap("x", name), "x"))));
        fields.push(field("y", "Vertical axis", choice("y", dims, state.y, (name) => change(() => swap("y", name), "y"))));
      }
      for (const name of quantity.dims) {
        if (name === state.x || name === state.y) continue;
        const options = data.dims[name].values.map((value, index) => [index,
          name === "claim" ? `${value}  ${claims.get(value) || ""}` : dimensionText(name, index)]);
        fields.push(field(`at-${name}`, name === "claim" ? "Claim" : name, choice(`at-${name}`, options, state.at[name],
          (index) => change(() => { state.at[name] = Number(index); }, `at-${name}`)), name === "claim" ? "wide" : ""));
      }
      if (quantity.kind === "number" && range().positive)
        fields.push(tick("log", "logarithmic colours", range().log, (on) => change(() => { state.log = on; }, "log")));
      form.replaceChildren(...fields);
    }

    // Smallest and largest value in the slice that is shown.
    function range() {
      const quantity = current();
      const values = [];
      data.dims[state.x].values.forEach((_, column) => rows().forEach((row) => {
        const value = read(quantity, indicesAt(column, row));
        if (value !== null) values.push(value);
      }));
      const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
      const positive = values.length > 0 && low > 0;
      return { low, high, positive, log: positive && (state.log ?? high > 100 * low) };
    }
    const rows = () => (state.y === null ? [0] : [...data.dims[state.y].values.keys()]);

    // Class of a cell, with its value where it has one.
    function look(indices) {
      const quantity = current();
      const status = statusOf(indices);
      const named = (name, kind = name) => ({ kind, symbol: SYMBOLS[name], text: word(name) });
      if (quantity.kind === "status") return named(status, status === "done" ? "holds" : status);
      if (status !== "done") return named(status);
      const value = read(quantity, indices);
      if (quantity.id === "control_verdict") return CONTROLS[VERDICTS[value]];
      if (quantity.kind === "verdict") return named(VERDICTS[value]);
      return value === null ? named("none") : { kind: "value", value, symbol: "", text: withUnit(number(value), quantity.unit) };
    }

    function draw() {
      drawControls();
      drawMap();
      drawKey();
      drawProfile();
      drawTable();
      describe();
    }

    function drawMap() {
      const place = byId("map");
      const quantity = current();
      const width = Math.max(place.clientWidth, 260);
      const yTexts = state.y === null ? [""] : data.dims[state.y].values.map((value) => shorten(axisText(state.y, value), 18));
      const left = (state.y === null ? 12 : 32) + 6.8 * Math.max(...yTexts.map((text) => text.length));
      const count = rows().length;
      const height = 62 + (state.y === null ? 70 : Math.min(Math.max(width * 0.55, 34 * Math.min(count, 12)), 460));
      const frame = { left, right: width - 10, top: 8, bottom: height - 54 };
      const across = bands(data.dims[state.x], frame.left, frame.right);
      // numbers grow upwards, texts are a list and read downwards
      const [start, end] = state.y === null || data.dims[state.y].numeric ? [frame.bottom, frame.top] : [frame.top, frame.bottom];
      const up = state.y === null ? { all: [{ index: 0, from: start, to: end, centre: (start + end) / 2 }], at: null }
        : bands(data.dims[state.y], start, end);
      const [columns, lines] = [across.all, up.all];
      const scale = range();
      const share = scale.log ? (value) => Math.log(value / scale.low) / (Math.log(scale.high / scale.low) || 1)
        : (value) => (value - scale.low) / (scale.high - scale.low || 1);
      const picture = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, height });
      picture.append(svg("defs", {}, hatch("hatch")));
      const dense = Math.min(...columns.map((one) => one.to - one.from), ...lines.map((one) => Math.abs(one.from - one.to))) < 8;
      const body = svg("g", { class: dense ? "dense" : null, role: "grid", "aria-labelledby": "map-title", "aria-describedby": "how",
        "aria-rowcount": lines.length, "aria-colcount": columns.length });
      const roomy = columns.length * lines.length <= 2500;
      const symbols = [];
      grid = [...lines].sort((a, b) => a.centre - b.centre).map((line, rank) => { // from top to bottom, as it is read
        const row = svg("g", { role: "row", "aria-rowindex": rank + 1 });
        const cells = columns.map((column, number_) => {
          const indices = indicesAt(column.index, line.index);
          const seen = look(indices);
          const page = data.pages[cellOf(indices)];
          const where = [state.x, state.y].filter((name) => name !== null).map((name) => `${name} ${dimensionText(name, indices[name])}`);
          const box = { x: column.from, y: Math.min(line.from, line.to), width: column.to - column.from, height: Math.abs(line.to - line.from) };
          const node = svg("rect", { ...box, class: `cell ${seen.kind}${page ? " openable" : ""}`, role: "gridcell", tabindex: -1,
            "aria-colindex": number_ + 1, "aria-label": `${where.join(", ")}: ${seen.text}` });
          if (seen.kind === "value") node.style.fill = colour(share(seen.value));
          const cell = { node, box, indices, seen, page, rank, number: number_ };
          node.cell = cell;
          row.append(node);
          if (roomy && seen.symbol && Math.min(box.width, box.height) >= 12)
            symbols.push(svg("text", { class: `symbol ${seen.kind}`, x: box.x + box.width / 2, y: box.y + box.height / 2,
              "font-size": Math.min(box.width, box.height, 34) * 0.55, "aria-hidden": "true" },
            seen.symbol));
          return cell;
        });
        body.append(row);
        return cells;
      });
      picture.append(body, ...symbols, svg("rect", { class: "frame", "aria-hidden": "true", x: frame.left, y: frame.top,
        width: frame.right - frame.left, height: frame.bottom - frame.top }));
      const band = (frame.right - frame.left) / columns.length;
      const xText = (value) => shorten(axisText(state.x, value), data.dims[state.x].numeric ? 12 : Math.max(Math.floor(band / 6.8), 7));
      for (const label of labels(data.dims[state.x], across, xText, (text) => 6.8 * text.length + 8, (frame.right - frame.left) / 70)) {
        const at = Math.min(label.place, width - 3.4 * label.text.length - 1);
        picture.append(svg("line", { class: "tick", x1: label.place, x2: label.place, y1: frame.bottom, y2: frame.bottom + 5 }),
          svg("text", { x: at, y: frame.bottom + 19, "text-anchor": "middle" }, label.text));
      }
      const yText = (value) => shorten(axisText(state.y, value), 18);
      for (const label of state.y === null ? [] : labels(data.dims[state.y], up, yText, () => 15, (frame.bottom - frame.top) / 45))
        picture.append(svg("line", { class: "tick", x1: frame.left - 5, x2: frame.left, y1: label.place, y2: label.place }),
          svg("text", { x: frame.left - 8, y: label.place + 4, "text-anchor": "end" }, label.text));
      picture.append(axisLabel(axisTitle(state.x), (frame.left + frame.right) / 2, height - 10));
      if (state.y !== null) picture.append(axisLabel(axisTitle(state.y), 14, (frame.top + frame.bottom) / 2, true));
      const marks = svg("g", { "aria-hidden": "true", class: "marks" });
      picture.append(marks);
      place.replaceChildren(picture);
      const chosen = (state.cell && grid.flat().find(sameCell)) || grid[0][0];
      chosen.node.setAttribute("tabindex", 0);
      const rest = quantity.dims.filter((name) => name !== state.x && name !== state.y && !(name === "claim" && quantity.id === "estimate"));
      byId("map-title").textContent = [labelOf(quantity), ...rest
        .map((name) => (name === "claim" ? data.dims.claim.values[state.at.claim] : `${name} = ${dimensionText(name, state.at[name])}`))].join(", ");
    }
    const axisText = (name, value) => (data.dims[name].numeric ? tickText(Number(value.toPrecision(6))) : String(value));
    const axisTitle = (name) => `${title(name)}${data.dims[name].log ? ", logarithmic" : ""}`;
    const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
    const hatch = (id) => svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { width: 6, height: 6, fill: "var(--card)" }), svg("rect", { width: 2.5, height: 6, fill: "var(--muted)" }));
    const sameCell = (cell) => state.cell !== null && Object.keys(cell.indices).every((name) => cell.indices[name] === state.cell[name]);

    function drawKey() {
      const quantity = current();
      const place = byId("key");
      const seen = new Map(grid.flat().map((cell) => [cell.seen.text, cell.seen]));
      const always = { verdict: ["holds", "undecided", "fails"].map((name) => ({ kind: name, symbol: SYMBOLS[name], text: word(name) })),
        control_verdict: [CONTROLS.fails, CONTROLS.undecided, CONTROLS.holds] }[quantity.id] || [];
      const legend = [...always, ...[...seen.values()].filter((one) => one.symbol && !always.some((other) => other.text === one.text))];
      const parts = [];
      if (quantity.kind === "number") parts.push(colourBar(quantity, range(), Math.min(byId("map").clientWidth, 420)));
      if (legend.length) parts.push(html("ul", { class: "legend", "aria-label": "Legend" }, legend.map((one) => html("li", {},
        svg("svg", { class: "plot", viewBox: "0 0 20 20", "aria-hidden": "true" },
          svg("rect", { class: `cell ${one.kind}`, x: 1, y: 1, width: 18, height: 18 }),
          svg("text", { class: `symbol ${one.kind}`, x: 10, y: 10, "font-size": 12 }, one.symbol)), one.text))));
      place.replaceChildren(...parts);
    }
    function colourBar(quantity, scale, width) {
      const [from, to] = [24, width - 24];
      const picture = svg("svg", { class: "plot", viewBox: `0 0 ${width} 54`, height: 54, style: `max-width:${width}px`, role: "img",
        "aria-label": `Colours from ${number(scale.low)} (dark) to ${number(scale.high)} (light)${quantity.unit ? `, in ${quantity.unit}` : ""}` });
      const stops = COLOURS.map((_, index) => svg("stop", { offset: index / (COLOURS.length - 1), "stop-color": colour(index / (COLOURS.length - 1)) }));
      picture.append(svg("defs", {}, svg("linearGradient", { id: "ramp" }, stops)));
      picture.append(svg("rect", { x: from, y: 4, width: to - from, height: 14, fill: "url(#ramp)" }));
      const place = continuous(scale.low, scale.high, scale.log, from, to);
      let ticks = scale.low === scale.high ? [scale.low] : (scale.log ? logTicks : linearTicks)(scale.low, scale.high, 4);
      if (!ticks.length) ticks = [scale.low, scale.high];
      for (const value of ticks) {
        const x = scale.low === scale.high ? (from + to) / 2 : place(value);
        picture.append(svg("line", { class: "tick", x1: x, x2: x, y1: 18, y2: 23 }), svg("text", { x, y: 35, "text-anchor": "middle" }, tickText(value)));
      }
      picture.append(axisLabel(quantityTitle(quantity), width / 2, 51));
      return picture;
    }

    // A cut through the diagram along the horizontal axis, with intervals.
    function drawProfile() {
      const quantity = current();
      const place = byId("profile");
      const dim = data.dims[state.x];
      if (quantity.kind !== "number" || !dim.numeric || dim.values.length < 2) {
        place.replaceChildren();
        return;
      }
      const row = state.y === null ? 0 : (state.cell || {})[state.y] ?? 0;
      const order = [...dim.values.keys()].sort((a, b) => dim.values[a] - dim.values[b]);
      const curve = (part) => quantity[part] && order.map((column) => {
        const indices = indicesAt(column, row);
        return statusOf(indices) === "done" ? read(quantity, indices, part) : null;
      });
      const cut = state.y === null ? "" : `, at ${state.y} = ${dimensionText(state.y, row)}`;
      place.replaceChildren(html("h3", {}, `Along ${state.x}${cut}`), drawLines(
        [{ name: "first", x: order.map((column) => dim.values[column]), middle: curve("values"), low: curve("low"), high: curve("high"), whiskers: true }],
        { width: Math.max(byId("map").clientWidth, 260), height: 230, xLog: dim.log, yLog: range().log, label: `${labelOf(quantity)} along ${state.x}${cut}`,
          xLabel: axisTitle(state.x), yLabel: quantityTitle(quantity) }));
    }

    function drawTable() {
      const place = byId("as-table");
      const body = place.querySelector("div");
      if (!place.open) {
        body.replaceChildren();
        return;
      }
      const quantity = current();
      const head = html("tr", {}, html("th", { scope: "col" }, state.y === null ? "" : `${title(state.y)} \\ ${title(state.x)}`),
        grid[0].map((cell) => html("th", { scope: "col", class: "num" }, dimensionText(state.x, cell.indices[state.x]))));
      const lines = grid.map((cells) => html("tr", {},
        html("th", { scope: "row" }, state.y === null ? quantity.label : dimensionText(state.y, cells[0].indices[state.y])),
        cells.map((cell) => {
          const text = `${cell.seen.symbol} ${cell.seen.text}`.trim();
          return html("td", { class: "num" }, cell.page ? html("a", { href: cell.page }, text) : text);
        })));
      body.replaceChildren(html("table", {}, html("caption", {}, byId("map-title").textContent), html("thead", {}, head), html("tbody", {}, lines)));
    }

    function select(cell, focused) {
      const before = state.cell && state.y !== null ? state.cell[state.y] : null;
      state.cell = cell.indices;
      if (focused) for (const other of grid.flat()) other.node.setAttribute("tabindex", other === cell ? 0 : -1);
      describe();
      if (state.y !== null && before !== cell.indices[state.y]) drawProfile();
    }
    function mark() {
      const marks = byId("map").querySelector(".marks");
      marks.replaceChildren();
      for (const cell of grid.flat()) {
        if (state.pinned === cell.page && cell.page) marks.append(svg("rect", { class: "pinned", ...cell.box }));
        if (sameCell(cell)) marks.append(svg("rect", { class: "cursor", ...cell.box }), svg("rect", { class: "cursor inner", ...cell.box }));
      }
    }

    function describe() {
      mark();
      const cell = state.cell && grid.flat().find(sameCell);
      if (!cell) return;
      const quantity = current();
      const { indices, seen, page } = cell;
      const flat = cellOf(indices);
      const facts = [];
      const fact = (name, text) => facts.push(html("dt", {}, name), html("dd", {}, text));
      for (const name of data.axes) fact(name, dimensionText(name, indices[name]));
      for (const name of quantity.dims) if (!data.axes.includes(name) && name !== "claim") fact(name, dimensionText(name, indices[name]));
      const said = [seen.text];
      const nodes = [];
      const status = statusOf(indices);
      const reason = data.reasons[flat];
      if (status === "done" && quantity.dims.includes("claim")) {
        const estimate = quantities.get("estimate");
        const ends = [read(estimate, indices, "low"), read(estimate, indices, "high")];
        const id = data.dims.claim.values[indices.claim];
        fact("claim", id);
        fact("verdict", badge(read(quantities.get("verdict"), indices)));
        fact("estimate", number(read(estimate, indices)));
        fact("interval", interval(ends));
        fact("control", CONTROLS[VERDICTS[read(quantities.get("control_verdict"), indices)]].text);
        nodes.push(html("p", { class: "statement" }, claims.get(id) || ""));
        said.push(`estimate ${number(read(estimate, indices))}, interval ${interval(ends)}`);
      } else if (status === "done" && quantity.kind === "number") {
        const ends = [read(quantity, indices, "low") ?? null, read(quantity, indices, "high") ?? null];
        fact(quantity.label, seen.text);
        fact("interval", interval(ends));
        said.push(`interval ${interval(ends)}`);
      }
      if (data.dims.claim && !quantity.dims.includes("claim") && status === "done") {
        const verdicts = data.dims.claim.values.map((_, claim) => VERDICTS[read(quantities.get("verdict"), { ...indices, claim })]);
        const counts = ["holds", "fails", "undecided"].map((name) => `${SYMBOLS[name]} ${verdicts.filter((one) => one === name).length}`);
        fact("verdicts", counts.join("  "));
      }
      if (status !== "done") fact("cell", word(status));
      if (reason) {
        nodes.push(html("p", { class: "notice" }, reason));
        said.push(reason);
      }
      const hash = data.runs[flat];
      if (page) {
        const actions = [html("a", { href: page, id: "open-run" }, `Open the run ${hash.slice(0, 8)}`)];
        const pin = html("button", { type: "button", onclick: () => { state.pinned = page; describe(); byId("panel").querySelector("button")?.focus(); } },
          state.pinned === page ? "Pinned for comparison" : "Pin for comparison");
        nodes.push(html("p", {}, actions), html("p", {}, pin));
        const other = state.pinned && data.runs[data.pages.indexOf(state.pinned)];
        if (other && other !== hash)
          nodes.push(html("p", {}, html("a", { href: `compare.html#a=${other}&b=${hash}` }, `Compare with the pinned run ${other.slice(0, 8)}`)));
      } else if (status === "done") nodes.push(html("p", { class: "muted" }, `The folder of its run${hash ? ` ${hash}` : ""} is not in this gallery.`));
      byId("panel").replaceChildren(html("dl", {}, facts), ...nodes);
      byId("said").textContent = said.join("; ");
    }
    const badge = (code) => html("span", { class: `verdict ${VERDICTS[code]}` }, `${SYMBOLS[VERDICTS[code]]} ${word(VERDICTS[code])}`);

    function open(cell) {
      select(cell, true);
      if (cell.page) location.href = cell.page;
    }
    function onKey(event) {
      const cell = event.target.cell;
      if (!cell || event.altKey || event.metaKey) return;
      const [last, bottom] = [grid[0].length - 1, grid.length - 1];
      const targets = {
        ArrowLeft: [cell.rank, cell.number - 1], ArrowRight: [cell.rank, cell.number + 1],
        ArrowUp: [cell.rank - 1, cell.number], ArrowDown: [cell.rank + 1, cell.number],
        Home: [event.ctrlKey ? 0 : cell.rank, 0], End: [event.ctrlKey ? bottom : cell.rank, last],
      };
      if (event.key === "Enter" || event.key === " ") open(cell);
      else if (event.key in targets) {
        const [rank, place] = targets[event.key];
        grid[rank]?.[place]?.node.focus();
      } else return;
      event.preventDefault();
    }

    // on the element around the diagram: an SVG element that listens to focus becomes a stop of the Tab key itself
    const map = byId("map");
    map.addEventListener("pointerover", (event) => event.target.cell && event.pointerType !== "touch" && select(event.target.cell, false));
    map.addEventListener("focusin", (event) => event.target.cell && select(event.target.cell, true));
    map.addEventListener("pointerdown", (event) => {
      // a finger cannot hover: its first touch reads the cell, the second opens the run
      touched = { touch: event.pointerType === "touch", again: event.target.cell !== undefined && sameCell(event.target.cell) };
    });
    map.addEventListener("click", (event) => {
      if (!event.target.cell) return;
      if (touched?.touch && !touched.again) select(event.target.cell, true);
      else open(event.target.cell);
    });
    map.addEventListener("keydown", onKey);
    byId("as-table").addEventListener("toggle", drawTable);
    byId("choices").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => { if (address().has("show")) { follow(); draw(); } });
    onResize(byId("map"), draw);
    follow();
    draw();
  }

  // ---------------------------------------------------------------- every page

  function start() {
    // the address of a page says what it shows, so the skip link must leave it alone
    document.querySelector(".skip")?.addEventListener("click", (event) => {
      event.preventDefault();
      byId("main").focus();
      byId("main").scrollIntoView();
    });
    ({ index: indexPage, run: runPage, compare: comparePage, sweep: sweepPage })[document.body.dataset.page]?.();
  }

  return { receive, start };
})();

separatrix.start();
