"use strict";
// Drawing: charts as SVG, the motion on a canvas. Texts become text nodes, so that no name is interpreted as markup.

const SVG = "http://www.w3.org/2000/svg";
// Red means one thing on these pages: needs a look.
const COLOURS = ["#0b6e4f", "#2b6cb0", "#b7791f"], ALARM = "#c62828", INK = "#1d2733", LEVEL = "#5b6775";
const CORRECTED = COLOURS[0], UNCORRECTED = "#7b4ea3";
const MANY_REJECTED = 0.5; // fraction of rejected pairs above which a frame or patch needs a look

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Round numbers that divide the range from low to high into at most n intervals.
function ticks(low, high, n) {
  const raw = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((v) => v >= raw * 0.999) || 10 * power;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) values.push(+(i * step).toPrecision(10));
  return values;
}

// A chart that is redrawn when its width changes, e.g. when a phone is rotated.
function chart(height, draw) {
  const box = h("div", { class: "chart" });
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth);
    if (width < 50 || width === drawn) return;
    drawn = width;
    box.replaceChildren(draw(width, typeof height === "function" ? height(width) : height));
  }).observe(box);
  return box;
}

// Axes of a plot: returns the SVG and the two scales. `x` and `y`: {low, high, label, ticks: [[value, text], ...]};
// y.second: {label, ticks} of the same values in another unit, at the right.
function axes(width, height, x, y, square = false) {
  const edge = { left: 48, right: y.second ? 48 : 20, top: 8, bottom: 40 };
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${y.label} against ${x.label}` });
  const w = width - edge.left - edge.right, t = height - edge.top - edge.bottom;
  const px = (v) => edge.left + ((v - x.low) / (x.high - x.low || 1)) * w;
  const py = (v) => edge.top + t - ((v - y.low) / (y.high - y.low || 1)) * t;
  for (const [value, text] of y.ticks) {
    svg.append(s("line", { x1: edge.left, x2: width - edge.right, y1: py(value), y2: py(value), stroke: "#e6eaef" }));
    svg.append(s("text", { x: edge.left - 6, y: py(value) + 4, "text-anchor": "end" }, text));
  }
  for (const [value, text] of x.ticks) {
    if (square) svg.append(s("line", { x1: px(value), x2: px(value), y1: edge.top, y2: edge.top + t, stroke: "#e6eaef" }));
    svg.append(s("text", { x: px(value), y: height - edge.bottom + 17, "text-anchor": "middle" }, text));
  }
  svg.append(s("rect", { x: edge.left, y: edge.top, width: w, height: t, fill: "none", stroke: "#c9d1da" }));
  svg.append(s("text", { x: edge.left + w / 2, y: height - 5, "text-anchor": "middle" }, x.label));
  const middle = edge.top + t / 2;
  svg.append(s("text", { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, y.label));
  if (y.second) {
    for (const [value, text] of y.second.ticks) svg.append(s("text", { x: width - edge.right + 6, y: py(value) + 4 }, text));
    svg.append(s("text", { x: width - 6, y: middle, "text-anchor": "middle", transform: `rotate(-90 ${width - 6} ${middle})` }, y.second.label));
  }
  return { svg, px, py };
}

const rejectedColour = (share) => (share > MANY_REJECTED ? ALARM : COLOURS[1]);

const plain = (low, high, n) => ticks(low, high, n).map((v) => [v, String(v)]);

// Chart of one value per movie. series: [{label, values}]; marked: true for each movie to highlight; order: of the movies;
// pixelA: pixel size, if all movies have the same, for a second axis beside one in pixels.
function ordered(series, names, marked, unit, order, pixelA, onPick) {
  const count = names.length;
  let high = 1e-9, low = 0;
  for (const one of series) for (const v of one.values) if (v != null) { high = Math.max(high, v); low = Math.min(low, v); }
  high *= 1.06;
  return chart((width) => (width < 500 ? 220 : 250), (width, height) => {
    const labels = plain(1, Math.max(count, 1.5), width / 80).filter(([v]) => v >= 1 && v === Math.round(v));
    const y = { low, high, label: unit, ticks: plain(low, high, 5) };
    if (unit === "px" && pixelA) y.second = { label: "Å", ticks: plain(low * pixelA, high * pixelA, 5).map(([v, text]) => [v / pixelA, text]) };
    const { svg, px, py } = axes(width, height, { low: 0.5, high: count + 0.5, label: `movie, in order of ${order}`, ticks: labels }, y);
    const radius = count > 400 ? 2 : count > 60 ? 3 : 4.5;
    series.forEach((one, k) => one.values.forEach((value, i) => {
      if (value == null) return;
      const alarm = marked[i] && k === 0;
      const dot = s("circle", { cx: px(i + 1).toFixed(1), cy: py(value).toFixed(1), r: alarm ? radius + 1.5 : radius, fill: alarm ? ALARM : COLOURS[k], class: "hit" });
      dot.movie = [i, one, value];
      svg.append(dot);
    }));
    // One listener for thousands of points; a point's words are made when the pointer comes to it.
    svg.addEventListener("click", (event) => { if (event.target.movie) onPick(event.target.movie[0]); });
    svg.addEventListener("pointerover", ({ target }) => {
      if (!target.movie || target.firstChild) return;
      const [i, one, value] = target.movie;
      target.append(s("title", {}, `${names[i]}: ${one.label} ${withUnit(value, unit, pixelA)}`));
    });
    return svg;
  });
}

// Number of finished movies over time.
function progress(times) {
  const first = times[0], last = Math.max(times[times.length - 1], first + 60);
  const days = last - first > 36 * 3600;
  const seconds = last - first < 600 ? { second: "2-digit" } : {};
  const text = (t) => new Date(t * 1000).toLocaleString([], days ? { day: "numeric", month: "short", hour: "2-digit" } : { hour: "2-digit", minute: "2-digit", ...seconds });
  return chart(200, (width, height) => {
    const n = Math.max(2, Math.floor(width / (days ? 130 : 110)));
    const labels = Array.from({ length: n }, (_, i) => first + ((last - first) * (i + 0.5)) / n).map((t) => [t, text(t)]);
    const { svg, px, py } = axes(width, height, { low: first, high: last, label: "time", ticks: labels },
      { low: 0, high: times.length * 1.05, label: "movies done", ticks: plain(0, times.length * 1.05, 4).filter(([v]) => v === Math.round(v)) });
    let path = `M${px(first)} ${py(0)}`;
    times.forEach((t, i) => { path += `V${py(i + 1).toFixed(1)}H${px(times[i + 1] ?? last).toFixed(1)}`; });
    svg.append(s("path", { d: path, fill: "none", stroke: COLOURS[0], "stroke-width": 2 }));
    return svg;
  });
}

// Colour of a point in time, from dark (first frame) to bright (last), as in the PNG plots.
function timeColour(fraction) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [220, 220, 40]];
  const at = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  return `rgb(${stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * (at - i))).join(",")})`;
}

// Trajectory of the global shifts; y grows downwards as in the image.
function trajectory(shifts, firstFrame, pixelA) {
  const xs = shifts.map((v) => v[1] * pixelA), ys = shifts.map((v) => v[0] * pixelA);
  const half = Math.max(0.58 * Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)), 0.5);
  const cx = (Math.max(...xs) + Math.min(...xs)) / 2, cy = (Math.max(...ys) + Math.min(...ys)) / 2;
  return chart((width) => Math.min(width, 420), (width, height) => {
    const wide = (half * (width - 60)) / (height - 48);
    const x = { low: cx - wide, high: cx + wide, label: "shift x (Å)" }, y = { low: cy + half, high: cy - half, label: "shift y (Å)" };
    x.ticks = plain(x.low, x.high, 5);
    y.ticks = plain(y.high, y.low, 5);
    const { svg, px, py } = axes(width, height, x, y, true);
    for (let i = 1; i < xs.length; i++)
      svg.append(s("line", { x1: px(xs[i - 1]), y1: py(ys[i - 1]), x2: px(xs[i]), y2: py(ys[i]), stroke: timeColour(i / xs.length), "stroke-width": 2 }));
    const both = (v) => `${nice(v / pixelA)} px (${nice(v)} Å)`;
    xs.forEach((v, i) => svg.append(s("circle", { cx: px(v), cy: py(ys[i]), r: 4, fill: timeColour(i / xs.length) },
      s("title", {}, `frame ${firstFrame + i}: x ${both(v)}, y ${both(ys[i])}`))));
    svg.append(s("circle", { cx: px(xs[0]), cy: py(ys[0]), r: 8, fill: "none", stroke: INK, "stroke-width": 2 }));
    return svg;
  });
}

// Curves over frequency up to Nyquist, labelled in Angstrom. curves: [[colour, [[frequency, value], ...]], ...];
// levels: values of dashed horizontal lines; marks: [[colour, resolution in A], ...] of dashed vertical ones.
function overFrequency(curves, nyquistA, label, low, high, levels = [], marks = []) {
  const frequency = 1 / nyquistA;
  return chart(190, (width, height) => {
    const labels = [];
    for (const a of [50, 20, 10, 7, 5, 4, 3, 2.5, 2, 1.7, 1.5, 1.2, 1, 0.8, 0.6]) {
      if (1 / a <= frequency * 1.001 && (!labels.length || (1 / a - labels[labels.length - 1][0]) * (width - 68) > 34 * frequency)) labels.push([1 / a, String(a)]);
    }
    const { svg, px, py } = axes(width, height, { low: 0, high: frequency, label: "resolution (Å)", ticks: labels }, { low, high, label, ticks: plain(low, high, 3) });
    for (const level of levels) svg.append(s("line", { x1: px(0), x2: px(frequency), y1: py(level), y2: py(level), stroke: LEVEL, "stroke-dasharray": "4 4" }));
    for (const [colour, a] of marks) if (a) svg.append(s("line", { x1: px(1 / a), x2: px(1 / a), y1: py(low), y2: py(high), stroke: colour, "stroke-dasharray": "4 4" }));
    for (const [colour, points] of curves) {
      const text = points.filter(([, v]) => v != null).map(([f, v]) => `${px(f).toFixed(1)},${py(v).toFixed(1)}`).join(" ");
      svg.append(s("polyline", { points: text, fill: "none", stroke: colour, "stroke-width": 1.6 }));
    }
    return svg;
  });
}

// The curves of the corrected and of the uncorrected image, from frequency 0 to Nyquist, without the first points.
function beforeAndAfter(values, first) {
  const count = values.corrected.length;
  const points = (curve) => curve.map((v, i) => [i / (count * values.nyquist_A), v]).slice(first);
  return [[UNCORRECTED, points(values.uncorrected)], [CORRECTED, points(values.corrected)]];
}

// Radial averages of the power spectra, without the steep part at the lowest frequencies.
function radial(profile, marks) {
  const curves = beforeAndAfter(profile, Math.max(3, Math.floor(profile.corrected.length / 32)));
  const known = curves.flatMap(([, values]) => values.map(([, v]) => v)).filter((v) => v != null);
  const low = Math.min(...known), high = Math.max(...known);
  return overFrequency(curves, profile.nyquist_A, "log power", low, high + 0.05 * (high - low), [], marks);
}

// Animation of the local motion: a mesh that deforms, and the paths of its points. Returns the canvas, draw(i), which
// draws frame i, and the magnification of the motion (`times`).
function motionCanvas(d, width) {
  const field = d.field, [ny, nx] = d.shape, nY = field.y.length, nX = field.x.length;
  const spacing = Math.max(ny, nx) / Math.max(nY, nX);
  let largest = 0;
  for (const frame of field.motion) for (let p = 0; p < frame.length; p += 2) largest = Math.max(largest, Math.hypot(frame[p], frame[p + 1]));
  largest *= field.step_px; // on this mesh, for the magnification only: the figure is field.largest_px
  const round = (v) => { const power = 10 ** Math.floor(Math.log10(v)); return Math.floor(v / power + 1e-9) * power; };
  const times = round((0.8 * spacing) / Math.max(largest, 1e-3)), margin = 0.3 * spacing;
  const scale = width / (nx + 2 * margin), height = Math.round((ny + 2 * margin) * scale), ratio = window.devicePixelRatio || 1;
  const canvas = h("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio), style: `width:${width}px;height:${height}px`,
    role: "img", "aria-label": "local motion over the frame" });
  const context = canvas.getContext("2d"), back = new Image();
  const X = (v) => (v + margin) * scale, unit = times * field.step_px;
  const at = (i, p) => [X(field.x[p % nX] + unit * field.motion[i][2 * p + 1]), X(field.y[Math.floor(p / nX)] + unit * field.motion[i][2 * p])];
  let shown = field.frames.length - 1;
  function draw(i) {
    shown = i;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    if (back.complete && back.naturalWidth) {
      const [x0, y0, x1, y1] = d.window;
      context.globalAlpha = 0.28;
      context.drawImage(back, X(x0), X(y0), (x1 - x0) * scale, (y1 - y0) * scale);
      context.globalAlpha = 1;
    }
    context.strokeStyle = "#aab4bf";
    context.lineWidth = 1;
    context.strokeRect(X(0), X(0), nx * scale, ny * scale);
    context.strokeStyle = "rgba(43, 108, 176, 0.45)";
    context.beginPath();
    for (let p = 0; p < nX * nY; p++) {
      if (p % nX) { context.moveTo(...at(i, p - 1)); context.lineTo(...at(i, p)); }
      if (p >= nX) { context.moveTo(...at(i, p - nX)); context.lineTo(...at(i, p)); }
    }
    context.stroke();
    context.lineWidth = 2.2;
    context.lineCap = "round";
    for (let f = 1; f <= i; f++) {
      context.strokeStyle = timeColour(f / field.frames.length);
      context.beginPath();
      for (let p = 0; p < nX * nY; p++) { context.moveTo(...at(f - 1, p)); context.lineTo(...at(f, p)); }
      context.stroke();
    }
    context.fillStyle = INK;
    for (let p = 0; p < nX * nY; p++) { context.beginPath(); context.arc(...at(i, p), 2.4, 0, 7); context.fill(); }
  }
  back.onload = () => draw(shown);
  if (d.thumbnail) back.src = d.thumbnail;
  draw(shown);
  return { canvas, draw, times };
}
