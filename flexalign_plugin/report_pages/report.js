// The pages: the run, and one movie (address #m=NUMBER). Texts become text nodes.

const data = JSON.parse(document.getElementById("data").textContent);
const movies = data.movies.map(unpacked), page = document.getElementById("page");
// Quality figures with charts of their own; the others can be chosen from a list.
const [TOTAL, EARLY, LATE] = data.charts.motion, [LOCAL] = data.charts["local motion"], [REJECTED] = data.charts.pairs;
const RINGS = "thon_rings_A";
const ORDER = data.order === "acquired" ? "acquisition" : "processing";
const position = new Map(movies.map((movie, i) => [movie.root, i]));
const ROWS = 50; // of the list, made at a time
const view = { search: "", sort: "newest", shown: ROWS, figure: null };
let stopPlaying = () => {};

// A row as `packing.py` has made it small.
function unpacked(small) {
  const row = { ...small, values: {} }, start = small.quoted ?? small.root;
  data.names.forEach((name, i) => { if (small.values[i] != null) row.values[name] = small.values[i]; });
  for (const name of ["warnings", "notes", "input", "doubts", "concerns", "frames", "micrograph"]) row[name] = data.common[small[name]];
  row.files = small.files.map((file) => (typeof file === "string" ? [file, start + file] : file));
  return row;
}

function nice(value) {
  if (value == null) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(3));
}
const withUnit = (value, unit, pixelA) => `${nice(value)} ${unit}${unit === "px" && pixelA ? ` (${nice(value * pixelA)} Å)` : ""}`.trim();
const inWords = (name, value, pixelA) => {
  const unit = data.figures[name] ? data.figures[name].unit : "";
  return value == null ? "–" : withUnit(unit === "%" ? 100 * value : value, unit, pixelA);
};
const ofMovie = (movie, name) => inWords(name, movie.values[name], movie.frames.pixel_size_A);
const median = (values) => { const v = values.filter((x) => x != null).sort((a, b) => a - b); return v.length ? (v[(v.length - 1) >> 1] + v[v.length >> 1]) / 2 : null; };
const column = (name) => movies.map((movie) => movie.values[name] ?? null);
const when = (seconds) => new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const address = (movie) => "#m=" + encodeURIComponent(position.get(movie.root) + 1);
const open = (i) => { location.hash = address(movies[i]); };
const doubts = (movie) => [...movie.warnings, ...movie.concerns];
const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), ...content);
const wide = (element) => { element.classList.add("wide"); return element; };
const legend = (...entries) => h("div", { class: "legend" }, entries.map(([text, colour]) => h("span", {}, h("i", { style: `background:${colour}` }), text)));

function runPage() {
  document.title = `FlexAlign report: ${data.title}`;
  const [, lately] = data.pace, local = median(column(LOCAL));
  const doubtful = movies.filter((movie) => doubts(movie).length);
  const waiting = data.expected == null ? null : Math.max(data.expected - movies.length - data.failed.length, 0);
  const tile = (value, text, kind = "") => h("div", { class: `tile ${kind}` }, h("b", {}, value), h("span", {}, text));
  const tiles = h("div", { class: "tiles" }, tile(String(movies.length), "done"),
    tile(String(data.failed.length), "failed", data.failed.length ? "alarm" : ""),
    waiting != null && data.running ? tile(String(waiting), "waiting") : null,
    tile(String(doubtful.length), "need a look", doubtful.length ? "alarm" : ""),
    lately ? tile(nice(lately), "movies per hour") : null,
    movies.length ? tile(`${nice(median(column(TOTAL)))} Å`, "total motion (median)") : null,
    median(column(EARLY)) != null ? tile(`${nice(median(column(EARLY)))} Å`, "in the first 4 e/Å² (median)") : null,
    median(column(RINGS)) != null ? tile(`${nice(median(column(RINGS)))} Å`, "Thon rings seen to (median)") : null,
    local != null ? tile(inWords(LOCAL, local), `${data.pixel_size_A ? `= ${nice(local * data.pixel_size_A)} Å, ` : ""}largest local motion (median)`) : null);
  const grid = h("div", { class: "grid" });
  page.replaceChildren(
    h("header", {}, h("h1", {}, `FlexAlign: ${data.title}`),
      h("p", { class: "soft" }, `${data.running ? "Running" : "Results"} as of ${when(data.written)}${data.running ? "; this page reloads every minute" : ""}. ${data.folder}`),
      data.expected ? h("div", { class: "bar" }, h("i", { style: `width:${(100 * movies.length) / data.expected}%` }), h("i", { style: `width:${(100 * data.failed.length) / data.expected}%` })) : null),
    tiles, grid);
  if (data.failed.length) grid.append(wide(failedCard()));
  if (data.unreadable.length) grid.append(wide(card("Could not be read", h("ul", {}, data.unreadable.map((text) => h("li", {}, text))))));
  if (!movies.length) {
    grid.append(wide(card("No movie is finished yet", h("p", {}, "Results appear here when movies are finished."))));
    return;
  }
  if (movies.some((movie) => movie.input)) grid.append(wide(inputCard()));
  if (doubtful.length) grid.append(wide(doubtfulCard(doubtful)));
  const early = column(EARLY).some((v) => v != null);
  const series = [{ label: "total", values: column(TOTAL) }];
  if (early) series.push({ label: "first 4 e/Å²", values: column(EARLY) }, { label: "later", values: column(LATE) });
  if (movies.length > 1) grid.append(...charts(series));
  grid.append(wide(listCard()));
  page.append(footer());
}

// What is drawn over the movies of a run; there must be two or more.
function charts(series) {
  const names = movies.map((movie) => movie.movie), [overall, lately] = data.pace;
  const finished = movies.map((movie) => movie.finished).sort((a, b) => a - b);
  const motion = card("Motion of each movie", legend(...series.map((one, k) => [one.label, COLOURS[k]]), ["needs a look", ALARM]),
    ordered(series, names, farOff(TOTAL), "Å", ORDER, null, open),
    h("p", { class: "soft" }, data.order === "acquired" ? "Ordered by the time of the movie files. Select a point to open its movie." :
      "Ordered by the time of the results, because the movie files are not available. Select a point to open its movie."));
  const throughput = card("Throughput", progress(finished), h("p", { class: "soft" },
    overall ? `${nice(overall)} movies per hour overall${lately ? `, ${nice(lately)} for the last ${Math.min(20, movies.length - 1)}` : ""}, by the times of the results' files; ` : "",
    `${inWords("seconds", median(column("seconds")))} per movie (median).`));
  return [wide(motion), doseCard(names), figureCard(names), throughput].filter(Boolean);
}

// For each movie, whether this figure is an outlier or above its limit.
const farOff = (name) => movies.map((movie) => movie.concerns.some((text) => text.startsWith(data.figures[name].label)));

function failedCard() {
  return card(`${counted(data.failed.length, "movie")} failed`, h("div", { class: "scroll" }, h("table", {},
    h("tr", {}, h("th", {}, "Movie"), h("th", {}, "Reason, and what to do")),
    data.failed.map(([movie, reason]) => h("tr", {}, h("td", { class: "name" }, movie), h("td", { class: "reason" }, withoutFolder(reason, movie)))))));
}

// Remove the movie's path from the start of a reason, because the table shows the movie's name already.
function withoutFolder(reason, movie) {
  const end = reason.indexOf(movie + ": ");
  return end >= 0 && !reason.slice(0, end).includes(": ") ? reason.slice(end + movie.length + 2) : reason;
}

function doubtfulCard(doubtful) {
  const lines = doubtful.map((movie) => h("li", {}, h("a", { href: address(movie) }, movie.movie), ": ", doubts(movie).join(" ")));
  const rest = lines.splice(6);
  return card("Need a look", h("ul", {}, lines), rest.length ? h("details", {}, h("summary", {}, `${rest.length} more`), h("ul", {}, rest)) : null);
}

// What the input of the run amounts to, as its newest movie has it, and every distinct doubt about it.
function inputCard() {
  const newest = movies.filter((movie) => movie.input).reduce((a, b) => (b.finished > a.finished ? b : a)), doubted = new Map();
  for (const movie of movies) for (const text of movie.doubts) {
    const kind = text.replace(/[\d.]+/g, ""), seen = doubted.get(kind) || { text, movies: 0 };
    seen.movies++;
    doubted.set(kind, seen);
  }
  return card("Input", h("p", {}, `${newest.movie}: ${newest.input}`),
    ...[...doubted.values()].map((doubt) => h("div", { class: "box" }, doubt.text, movies.length > 1 ? h("small", {}, ` In ${doubt.movies} of ${counted(movies.length, "movie")}.`) : "")));
}

// Dose of each movie: counted where it can be, else the mean intensity. It shows a source that fades.
function doseCard(names) {
  const figure = data.figures[data.dose], values = column(data.dose);
  if (!figure || !values.some((v) => v != null)) return null;
  const isCounted = figure.unit !== "", middle = median(values);
  const given = movies.map((movie) => {
    const dose = ((data.settings[movie.settings] || {}).dose_per_frame || 0) * (movie.frames.in_movie || 0);
    return dose && dose < 3 * middle ? dose : null; // a dose that is far off would hide how the counts change
  });
  const series = [{ label: figure.label, values }], low = farOff(data.dose);
  if (isCounted && given.some((v) => v != null)) series.push({ label: "Given dose", values: given });
  return wide(card("Dose of each movie", legend(...series.map((one, k) => [one.label, COLOURS[k]]), ...(low.some(Boolean) ? [["needs a look: less than half of the median", ALARM]] : [])),
    ordered(series, names, low, isCounted ? figure.unit : "mean value", ORDER, null, open),
    h("p", { class: "soft" }, isCounted ? "Electrons counted in each movie. A slow fall means that the source fades; single low movies have thick ice or a blocked beam." :
      "Mean value of the frames of each movie, because their electrons can't be counted. A slow fall means that the source fades; single low movies have thick ice or a blocked beam.")));
}

function figureCard(names) {
  const known = Object.keys(data.figures).filter((name) => name !== TOTAL && column(name).some((v) => v != null));
  if (!known.includes(view.figure)) view.figure = known.includes(LOCAL) ? LOCAL : known[0];
  const place = h("div");
  const draw = () => {
    const figure = data.figures[view.figure], factor = figure.unit === "%" ? 100 : 1;
    const values = column(view.figure).map((v) => (v == null ? null : v * factor));
    place.replaceChildren(ordered([{ label: figure.label, values }], names, farOff(view.figure), figure.unit || "value", ORDER, data.pixel_size_A, open), h("p", { class: "soft" }, figure.meaning));
  };
  const select = h("select", { "aria-label": "quality figure", onchange: () => { view.figure = select.value; draw(); } },
    known.map((name) => h("option", { value: name, selected: name === view.figure }, data.figures[name].label)));
  draw();
  return card("Quality", h("div", { class: "tools" }, select), place);
}

// The list of movies; rows are made as they scroll into view.
function listCard() {
  const body = h("tbody"), more = h("p", { class: "soft" }), count = h("p", { class: "soft" });
  const orders = { newest: (a, b) => b.finished - a.finished, acquisition: (a, b) => position.get(a.root) - position.get(b.root),
    motion: (a, b) => (b.values[TOTAL] ?? 0) - (a.values[TOTAL] ?? 0), rings: (a, b) => (b.values[RINGS] ?? Infinity) - (a.values[RINGS] ?? Infinity) || 0,
    doubts: (a, b) => doubts(b).length - doubts(a).length, name: (a, b) => a.movie.localeCompare(b.movie, undefined, { numeric: true }) };
  const [hasEarly, hasRings] = [EARLY, RINGS].map((name) => column(name).some((v) => v != null));
  const row = (movie) => h("tr", { class: doubts(movie).length ? "flagged" : "" },
    h("td", {}, movie.details && movie.details.thumbnail ? h("img", { src: movie.details.thumbnail, alt: "" }) : ""),
    h("td", { class: "name" }, h("a", { href: address(movie) }, movie.movie), doubts(movie).length ? h("small", {}, doubts(movie)[0]) : null),
    h("td", { class: "number" }, ofMovie(movie, TOTAL)),
    hasEarly ? h("td", { class: "number desk" }, ofMovie(movie, EARLY)) : null,
    h("td", { class: "number desk" }, ofMovie(movie, LOCAL)),
    hasRings ? h("td", { class: "number desk" }, ofMovie(movie, RINGS)) : null);
  let found = [], made = 0;
  function add(upTo) {
    body.append(...found.slice(made, upTo).map(row));
    made = view.shown = Math.min(upTo, found.length);
    more.hidden = made === found.length;
    more.textContent = `${found.length - made} more below`;
  }
  function fill(rows = ROWS) {
    found = movies.filter((movie) => movie.movie.toLowerCase().includes(view.search.toLowerCase())).sort(orders[view.sort]);
    made = 0;
    body.replaceChildren();
    add(Math.max(rows, ROWS));
    watch.unobserve(more);
    watch.observe(more);
    count.textContent = found.length ? "" : "No movie's name contains this text.";
  }
  const watch = new IntersectionObserver((seen) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    add(made + ROWS);
    watch.unobserve(more); // observed anew it is reported again, also if it has never left the view
    if (!more.hidden) watch.observe(more);
  }, { rootMargin: "800px" });
  const search = h("input", { type: "search", placeholder: "Part of the name", "aria-label": "search", oninput: () => { view.search = search.value; fill(); } });
  search.value = view.search;
  const sort = h("select", { "aria-label": "order", onchange: () => { view.sort = sort.value; fill(); } },
    [["newest", "Newest first"], ["acquisition", data.order === "acquired" ? "Order of acquisition" : "Oldest first"], ["motion", "Most motion first"],
      ...(hasRings ? [["rings", "Poorest Thon rings first"]] : []), ["doubts", "Needing a look first"], ["name", "By name"]]
      .map(([value, text]) => h("option", { value, selected: value === view.sort }, text)));
  fill(view.shown);
  const pictured = movies.filter((movie) => movie.details).length;
  return card(counted(movies.length, "movie"),
    pictured < movies.length ? h("p", { class: "soft" }, `This page contains the pictures of ${pictured} of them: the newest and those with the most warnings. ` +
      "For the others it has the quality figures and links to the pictures; the links work if this file is in the folder of the results.") : null,
    h("div", { class: "tools" }, search, sort),
    h("table", {}, h("thead", {}, h("tr", {}, h("th"), h("th", {}, "Movie"), h("th", { class: "number" }, "Total motion"),
      hasEarly ? h("th", { class: "number desk" }, "Early") : null, h("th", { class: "number desk" }, "Local"), hasRings ? h("th", { class: "number desk" }, "Rings to") : null)), body), count, more);
}

function moviePage(movie) {
  const i = position.get(movie.root), d = movie.details;
  document.title = `${movie.movie} – FlexAlign`;
  const step = (to, text) => h("button", { disabled: !movies[to], onclick: () => open(to) }, text);
  const grid = h("div", { class: "grid" });
  page.replaceChildren(
    h("div", { class: "tools steps" }, h("button", { onclick: () => { location.hash = ""; } }, "All movies"), step(i - 1, "‹ Previous"), step(i + 1, "Next ›")),
    h("header", {}, h("h1", {}, movie.movie), h("p", { class: "soft" }, `Movie ${i + 1} of ${movies.length}. ${facts(movie)}`)),
    ...(movie.input ? [h("p", { class: "soft" }, movie.input)] : []),
    ...doubts(movie).map((text) => h("div", { class: "box look" }, text)), ...movie.doubts.map((text) => h("div", { class: "box" }, text)), ...movie.notes.map((text) => h("div", { class: "box note" }, text)), grid);
  if (d) {
    if (d.thumbnail) grid.append(card("Micrograph", h("img", { class: "picture", src: d.thumbnail, alt: "the corrected micrograph" })));
    if (d.shifts) grid.append(card("Global motion", trajectory(d.shifts, d.first_frame, d.pixel_size_A),
      h("p", { class: "soft" }, "Shifts added to the frames to align them; the specimen moved in the opposite direction. Early frames are dark, late ones bright; the ring marks the first aligned frame.")));
    if (d.field) grid.append(fieldCard(d));
    if (d.psd || d.plot_psd) grid.append(spectrumCard(d));
  } else {
    grid.append(card("Pictures", h("p", {}, "To keep this page small, it does not contain the pictures of this movie. These links work if this file is in the folder of the results:"), fileList(movie, /\.png$/)));
  }
  grid.append(h("div", { class: "stack" }, d && d.patches ? patchesCard(d) : null, d && d.frame_rejected ? framesCard(d, movie) : null, d && d.frc ? frcCard(d.frc) : null, settingsCard(movie)),
    figuresCard(movie), card("Files", fileList(movie, /./)));
  page.append(footer());
  window.scrollTo(0, 0);
}

function facts(movie) {
  const f = movie.frames, m = movie.micrograph, parts = [];
  if (f.in_movie) parts.push(`${f.in_movie} frames, ${f.first_aligned} to ${f.last_aligned} aligned${f.first_summed !== f.first_aligned || f.last_summed !== f.last_aligned ? `, ${f.first_summed} to ${f.last_summed} summed` : ""}`);
  if (m.size_x) parts.push(`micrograph ${m.size_x} × ${m.size_y} px at ${nice(m.pixel_size_A)} Å`);
  if (movie.acquired != null) parts.push(`file of ${when(movie.acquired)}`);
  return parts.join("; ") + `; aligned ${when(movie.finished)}.`;
}

function fieldCard(d) {
  const place = h("div"), text = h("span", { class: "soft" }), last = d.field.frames.length - 1;
  const slider = h("input", { type: "range", min: 0, max: last, "aria-label": "frame" }), play = h("button", {}, "Play");
  const caption = h("p", { class: "soft" });
  let drawn = null, timer = null;
  slider.value = last;
  const show = () => { if (drawn) drawn.draw(+slider.value); text.textContent = `frame ${d.field.frames[+slider.value]}`; };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  stopPlaying = stop;
  slider.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    slider.value = 0;
    play.textContent = "Stop";
    timer = setInterval(() => { slider.value = (+slider.value + 1) % (last + 1); show(); }, 2500 / (last + 1));
    show();
  });
  place.append(chart(0, (width) => {
    drawn = motionCanvas(d, Math.min(width, 460));
    caption.textContent = `Relative to frame ${d.first_frame}, magnified ${nice(drawn.times)} times; at most ${withUnit(d.field.largest_px, "px", d.pixel_size_A)}, edges of the frame included. If neighbouring points move in different directions, the patches contain too little signal.`;
    show();
    return drawn.canvas;
  }));
  return card("Local motion", place, h("div", { class: "tools" }, play, slider, text), caption);
}

function spectrumCard(d) {
  const seen = d.rings ? d.rings.seen_to_A : [null, null], marks = [[CORRECTED, seen[0]], [UNCORRECTED, seen[1]]];
  const ends = (a) => (d.rings ? (a ? `, rings to ${nice(a)} Å` : ", no rings") : "");
  const parts = d.plot_psd ? [h("img", { class: "picture", src: d.plot_psd, alt: "power spectrum and radial averages" })] : [
    h("div", { class: "halves" }, h("span", { style: `color:${CORRECTED}` }, "corrected" + ends(seen[0])), h("span", { style: `color:${UNCORRECTED}` }, "uncorrected" + ends(seen[1]))),
    h("img", { class: "picture", src: d.psd, alt: "power spectrum, left corrected, right uncorrected" }),
    d.profile ? radial(d.profile, marks) : null,
    d.rings ? overFrequency(beforeAndAfter(d.rings, 0), d.rings.nyquist_A, "rings", 0, 1, [0.5], marks) : null];
  return card("Power spectrum before and after", ...parts, h("p", { class: "soft" }, "Left corrected, right uncorrected. Thon rings should be continuous across the halves and extend to higher resolution on the left." +
    (d.rings ? " Lower curves: correlation of the rings in two halves of the image's tiles; rings are seen to where it falls below 0.5." : "")));
}

function frcCard(frc) {
  const low = Math.min(0, ...frc.curve.map(([, value]) => value));
  return card("Even and odd frames", overFrequency([[COLOURS[0], frc.curve]], frc.nyquist_A, "correlation", low, 1, [0.143, 0.5]),
    h("p", { class: "soft" }, "Fourier ring correlation between the micrographs of the even and of the odd frames. Dashed lines: 0.5 and 0.143."));
}

// Positions of the patches, and the residuals between their measured shifts and the fitted local motion.
function patchesCard(d) {
  const [ny, nx] = d.shape, largest = Math.max(...d.patches.map((p) => p[2]), 1e-6);
  return card("Residuals of the patches", chart((width) => Math.round((Math.min(width, 460) * ny) / nx), (width, height) => {
    const w = Math.min(width, 460), k = w / nx, spacing = Math.min(nx, ny) / Math.sqrt(d.patches.length);
    const svg = s("svg", { width, height, viewBox: `${-(width - w) / 2} 0 ${width} ${height}`, role: "img", "aria-label": "residuals of the patches" });
    svg.append(s("rect", { x: 0.5, y: 0.5, width: w - 1, height: ny * k - 1, fill: "#f7f9fb", stroke: "#aab4bf" }));
    for (const [y, x, r, rejected] of d.patches) {
      const colour = rejectedColour(rejected), share = rejected == null ? "" : `${Math.round(100 * rejected)} %`;
      svg.append(s("circle", { cx: x * k, cy: y * k, r: Math.max(0.45 * spacing * k * Math.sqrt(r / largest), 2), fill: colour, "fill-opacity": 0.35, stroke: colour },
        s("title", {}, `${withUnit(r, "px", d.pixel_size_A)}${share && `, ${share} of the pairs rejected`}`)));
      if (d.patches.length > 64) continue;
      svg.append(s("text", { x: x * k, y: y * k + (share ? -2 : 4), "text-anchor": "middle" }, nice(+r.toPrecision(2))));
      if (share) svg.append(s("text", { x: x * k, y: y * k + 11, "text-anchor": "middle" }, share));
    }
    return svg;
  }), h("p", { class: "soft" }, `Difference between the shifts measured in each of ${d.patches.length} patches and the fitted local motion, in pixels of ${nice(d.pixel_size_A)} Å (RMS over the frames); larger circles mean larger residuals. ${d.patches[0][3] == null ? "" : "Below it: percentage of the patch's frame pairs that were rejected; red above 50 %. "}If one patch has a much larger residual than the others, something there moves independently, or the patch contains no signal.`));
}

// Rejected pairs of each frame: high for an empty frame, or one in which the specimen jumped.
function framesCard(d, movie) {
  const shares = d.frame_rejected.map((v) => 100 * v), last = d.first_frame + shares.length - 1, high = Math.max(10, ...shares);
  if (!shares.some((v) => v > 0)) return card("Rejected pairs of each frame", h("p", {}, "None: all frame pairs agree with the global motion."));
  return card("Rejected pairs of each frame", chart(150, (width, height) => {
    const { svg, px, py } = axes(width, height, { low: d.first_frame - 0.5, high: last + 0.5, label: "frame", ticks: plain(d.first_frame, last, 6).filter(([v]) => Number.isInteger(v)) },
      { low: 0, high, label: "%", ticks: plain(0, high, 3) });
    shares.forEach((v, i) => svg.append(s("rect", { x: px(d.first_frame + i - 0.42), width: px(0.84) - px(0), y: py(v), height: py(0) - py(v), fill: rejectedColour(v / 100) },
      s("title", {}, `frame ${d.first_frame + i}: ${nice(v)} %`))));
    return svg;
  }), h("p", { class: "soft" }, `${inWords(REJECTED, movie.values[REJECTED])} of all frame pairs are inconsistent with the global motion and were rejected. A frame with many more than the others contains little signal, or the specimen jumped.`));
}

function figuresCard(movie) {
  const rows = Object.keys(data.figures).filter((name) => movie.values[name] != null).map((name) => {
    const value = movie.values[name], figure = data.figures[name], high = figure.limit != null && value > figure.limit;
    return h("tr", {}, h("td", {}, figure.label, h("small", {}, figure.meaning)), h("td", { class: `number ${high ? "alarm-text" : ""}` }, ofMovie(movie, name)),
      h("td", { class: "number soft desk" }, inWords(name, median(column(name)), data.pixel_size_A)));
  });
  return card("Quality figures", h("table", {}, h("tr", {}, h("th", {}, "Figure"), h("th", { class: "number" }, "This movie"), h("th", { class: "number desk" }, "Run's median")), rows));
}

function settingsCard(movie) {
  const settings = data.settings[movie.settings] || {}, text = (v) => (v === null ? "none" : v === true ? "yes" : v === false ? "no" : String(v));
  const names = Object.keys(settings), changed = names.filter((name) => settings[name] !== data.defaults[name]);
  const table = (rows) => h("table", {}, rows.map((name) => h("tr", {}, h("td", {}, name.replaceAll("_", " ")), h("td", { class: "reason" }, text(settings[name])))));
  return card("Settings", changed.length ? table(changed) : h("p", {}, "All settings have their defaults."),
    h("details", {}, h("summary", {}, "Settings with default values"), table(names.filter((name) => !changed.includes(name)))));
}

const fileList = (movie, pattern) => h("ul", {}, movie.files.filter(([ending]) => pattern.test(ending)).map(([ending, name]) =>
  h("li", {}, h("a", { href: data.base + name, target: "_blank", rel: "noopener" }, ending.replace(/^_/, "")))));
const footer = () => h("footer", { class: "soft" }, `Written by FlexAlign ${data.version}. This file loads nothing from the network.`);

function show() {
  stopPlaying();
  const wanted = /^#m=(\d+)$/.exec(location.hash), movie = wanted && movies[+wanted[1] - 1];
  if (movie) moviePage(movie);
  else runPage();
}
window.addEventListener("hashchange", show);
window.addEventListener("keydown", (event) => {
  const wanted = /^#m=(\d+)$/.exec(location.hash), to = wanted && { ArrowLeft: +wanted[1] - 2, ArrowRight: +wanted[1] }[event.key];
  if (to != null && movies[to] && event.target === document.body) open(to);
});
// Reload, but not while the page of a movie is open.
if (data.running) setInterval(() => { if (location.hash.length < 2) location.reload(); }, 60000);
show();
