// The plots of a cache, drawn by uPlot from the numbers of the server, in the colours of the page.
"use strict";

const HEIGHT = 260;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: of("quiet"), grid: of("line"), first: of("plot-1"), second: of("plot-2"), third: of("plot-3"),
    pale: of("plot-pale"),
  };
}

const percent = (share) => (share == null ? "–" : `${(100 * share).toPrecision(3)} %`);
const plain = (value) => (value == null ? "–" : `${Number(value.toPrecision(4))}`);

// What all plots share: axes in the page's colours, a legend that tells the values under the cursor.
function options(shade, x, y, series) {
  const axis = ({ label, ticks, some }) => {
    const lines = { stroke: shade.grid, width: 1, ...(some && { filter: some }) };
    return {
      label, labelSize: 22, labelFont: "12px system-ui", font: "12px system-ui", stroke: shade.text,
      values: ticks, grid: lines, ticks: lines, ...(some && { filter: some }),
    };
  };
  return {
    height: HEIGHT,
    scales: { x: { time: false, ...x.scale }, y: { ...y.scale } },
    axes: [axis(x), { ...axis(y), size: 58 }],
    series: [{ label: x.label, value: (_, value) => plain(value) }, ...series],
    cursor: { drag: { x: false, y: false } },
    legend: { live: true },
  };
}

const points = (size, stroke, fill) => ({ show: true, size, stroke, fill, width: 1.5 });

// Of a logarithmic axis only some ticks are told, or they would lie on each other.
function logarithmicAxis(label, values, format) {
  const [least, most] = reach(values);
  const leading = most / least < 100 ? /^[125]/ : /^1/;
  const some = (_, ticks) => ticks.map((tick) => (tick && leading.test(tick.toExponential()) ? tick : null));
  return {
    label,
    scale: { distr: 3, range: [least, most] },
    ticks: (_, ticks) => ticks.map((tick) => (tick == null ? "" : format(tick))),
    some,
  };
}

function reach(values) {
  const known = values.filter((value) => value != null && value > 0);
  return [Math.min(...known) / 1.4, Math.max(...known) * 1.4];
}

function lost(figures, shade) {
  const rates = figures.rates.filter((rate) => rate.lost != null && rate.lost > 0);
  if (!rates.length) return null;
  const x = rates.map((rate) => rate.bytes_per_view);
  const y = rates.map((rate) => rate.lost);
  const where = (fits) => rates.map((rate) => (fits(rate) ? rate.lost : null));
  const series = [
    { label: "every record tried", stroke: shade.pale, paths: () => null, points: points(5, shade.pale, shade.pale) },
    { label: "best of its size", stroke: shade.first, width: 2, spanGaps: true, points: points(6, shade.first, shade.first) },
    { label: "this cache", stroke: shade.second, paths: () => null, points: points(14, shade.second, "transparent") },
  ].map((line) => ({ ...line, value: (_, value) => percent(value) }));
  return {
    data: [x, y, where((rate) => rate.on_frontier), where((rate) => rate.chosen)],
    options: options(
      shade,
      logarithmicAxis("bytes a view", x, plain),
      logarithmicAxis("variance lost", y, (tick) => `${Number((100 * tick).toPrecision(2))} %`),
      series,
    ),
  };
}

function gradients(figures, shade) {
  const rates = figures.rates.filter((rate) => rate.on_frontier || rate.chosen);
  const x = rates.map((rate) => rate.bytes_per_view);
  // A logarithmic axis has no place for nothing.
  const of = (name) => rates.map((rate) => Math.max(rate[name], 1e-5));
  const own = rates.map((rate) => (rate.chosen ? Math.max(rate.kd_4, 1e-5) : null));
  const line = (label, stroke) => ({ label, stroke, width: 2, points: points(5, stroke, stroke), value: (_, value) => plain(value) });
  const every = [...of("kd_1"), ...of("kd_4"), ...of("worst")];
  return {
    data: [x, of("kd_1"), of("kd_4"), of("worst"), own],
    options: options(
      shade,
      logarithmicAxis("bytes a view", x, plain),
      logarithmicAxis("1 − gradient cosine", every, plain),
      [
        line("kd at T = 1", shade.first), line("kd at T = 4", shade.second), line("worst of a few", shade.third),
        { label: "this cache", stroke: shade.text, paths: () => null, points: points(14, shade.text, "transparent"), value: (_, value) => plain(value) },
      ],
    ),
  };
}

function accuracy(figures, shade) {
  const groups = figures.accuracies;
  const names = groups.map((group) => (group.first_view === group.last_view ? `${group.first_view}` : `${group.first_view}–${group.last_view}`));
  const bars = (align) => uPlot.paths.bars({ size: [0.35, 60], align });
  const bar = (label, stroke, align) => ({ label, stroke, fill: stroke, width: 0, paths: bars(align), points: { show: false }, value: (_, value) => percent(value) });
  const found = options(
    shade,
    { label: "views", scale: { range: [-0.6, groups.length - 0.4] }, ticks: (_, ticks) => ticks.map((tick) => names[tick] ?? "") },
    { label: "share that is right", scale: { range: [0, 1] }, ticks: (_, ticks) => ticks.map((tick) => `${Math.round(100 * tick)} %`) },
    [bar("top-1", shade.first, -1), bar("top-5", shade.second, 1)],
  );
  found.axes[0].splits = () => groups.map((_, index) => index);
  found.series[0].value = (_, index) => names[index] ?? "–";
  const column = (name) => groups.map((group) => group[name]);
  return { data: [groups.map((_, index) => index), column("top1"), column("top5")], options: found };
}

function calibration(figures, shade) {
  const bins = figures.confidences;
  const middles = bins.map((bin) => (bin.low + bin.high) / 2);
  const share = (label) => ({ label, value: (_, value) => percent(value) });
  const axis = { scale: { range: [0, 1] }, ticks: (_, ticks) => ticks.map((tick) => `${Math.round(100 * tick)} %`) };
  return {
    data: [middles, bins.map((bin) => bin.top1), middles, bins.map((bin) => bin.records || null)],
    options: options(shade, { label: "confidence", ...axis }, { label: "share that is right", ...axis }, [
      { ...share("right"), stroke: shade.first, fill: shade.first, width: 0, paths: uPlot.paths.bars({ size: [0.85, 60] }), points: { show: false } },
      { ...share("as sure as right"), stroke: shade.second, width: 2, dash: [6, 4], points: { show: false } },
      { label: "records", show: true, paths: () => null, points: { show: false }, scale: "records", value: (_, value) => (value == null ? "–" : value.toLocaleString("en")) },
    ]),
  };
}

function entropy(figures, shade) {
  const bins = figures.entropies;
  const limit = bins[bins.length - 1].high;
  return {
    data: [bins.map((bin) => (bin.low + bin.high) / 2), bins.map((bin) => bin.records)],
    options: options(
      shade,
      { label: "entropy, nats", scale: { range: [0, limit] } },
      { label: "records", scale: { range: (_, low, high) => [0, high * 1.08 || 1] }, ticks: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en")) },
      [{ label: "records", stroke: shade.first, fill: shade.first, width: 0, paths: uPlot.paths.bars({ size: [0.85, 60] }), points: { show: false }, value: (_, value) => (value == null ? "–" : value.toLocaleString("en")) }],
    ),
  };
}

const KINDS = { lost, gradients, accuracy, calibration, entropy };

function draw(figures) {
  const shade = colours();
  for (const place of document.querySelectorAll("[data-plot]")) {
    const plot = KINDS[place.dataset.plot](figures, shade);
    if (!plot) {
      place.closest("figure").hidden = true;
      continue;
    }
    place.replaceChildren();
    new uPlot({ ...plot.options, width: place.clientWidth }, plot.data, place);
    for (const canvas of place.querySelectorAll("canvas")) canvas.setAttribute("aria-hidden", "true");
  }
}

async function main() {
  const panel = document.querySelector("[data-figures]");
  if (!panel.querySelector("[data-plot]")) return;
  const figures = await (await fetch(panel.dataset.figures)).json();
  draw(figures);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(figures));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) draw(figures);
    width = innerWidth;
  });
}

main();
