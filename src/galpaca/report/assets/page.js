// Draws the plots from the page's own data. One uPlot for each figure, made anew when its axes or the colours change.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("data").textContent);
  const NUM_COLOURS = 8;
  // Between two ticks of what is counted: no half steps.
  const WHOLE = [...Array(15).keys()].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));
  const view = { over: "steps", eachStep: true };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const several = page.runs.length > 1;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (place) => css(`--c${place % NUM_COLOURS}`);
  const faint = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
  const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
  function formatted(value) {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size !== 0 && size < 1e-3) return value.toExponential(2);
    return size >= 1e5 ? compact.format(value) : plain.format(value);
  }

  // All ticks of an axis in one notation.
  function onAxis(ticks) {
    const sizes = ticks.filter((tick) => tick).map(Math.abs);
    const tiny = sizes.length > 0 && Math.min(...sizes) < 1e-3 && Math.max(...sizes) < 1;
    return ticks.map((tick) => {
      if (tick == null) return "";
      if (tiny) return tick === 0 ? "0" : tick.toExponential().replace(/(\.\d\d)\d+/, "$1");
      return Math.abs(tick) >= 1e4 ? compact.format(tick) : plain.format(tick);
    });
  }

  // A step as tokens or hours, between the steps at which the run's clock is known.
  function fromStep(run, step) {
    if (view.over === "steps") return step;
    const known = page.runs[run].clock, steps = known.step, values = known[view.over];
    let low = 0, high = steps.length - 1;
    if (high < 1) return step;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    const share = (step - steps[low]) / (steps[high] - steps[low]);
    return values[low] + share * (values[high] - values[low]);
  }

  function label(line, chart) {
    const name = line.label || (several ? "" : chart.title.toLowerCase());
    return [several ? page.runs[line.run].name : "", several && line.look === "smooth" && !line.label ? "smoothed" : name].filter(Boolean).join(" ");
  }

  function look(line, place, lines) {
    const own = colour(several ? line.run : 0);
    const common = { spanGaps: true, points: { show: false } };
    switch (line.look) {
      case "raw": return { ...common, stroke: faint(own, several ? 0.2 : 0.3), width: 1 };
      case "smooth": return { ...common, stroke: own, width: 2 };
      case "points": {
        const nth = lines.slice(0, place).filter((l) => l.look === "points" && l.run === line.run).length;
        const ink = several ? own : colour(1 + nth);
        const points = { show: true, size: 7, fill: ink, stroke: css("--surface"), width: 1.5 };
        return { ...common, stroke: ink, width: 1.25, dash: [4, 4], points };
      }
      case "marks": {
        const ink = several ? own : css("--bad");
        const points = { show: true, size: 9, fill: css("--surface"), stroke: ink, width: 2 };
        return { ...common, paths: () => null, stroke: ink, points };
      }
      // The sum of all parts is drawn first, and the smaller sums over it.
      case "area": return { ...common, stroke: css("--surface"), width: 1, fill: colour([5, 0, 1, 7][lines.length - 1 - place]) };
      case "bars": {
        const paths = several ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.bars({ size: [0.92, 60], align: 1 });
        return { ...common, paths, stroke: own, width: several ? 2 : 0, fill: faint(own, several ? 0.12 : 0.8) };
      }
      default: return { ...common, stroke: own, width: 2 };
    }
  }

  function numbers(chart, lines, isLog) {
    const positive = (values) => (isLog ? values.map((v) => (v > 0 ? v : null)) : values);
    if (lines[0].look === "area") {
      const sums = [];
      for (const line of lines) sums.push(line.y.map((v, i) => v + (sums.length ? sums[sums.length - 1][i] : 0)));
      return [lines[0].x.map((x) => fromStep(lines[0].run, x)), ...sums.reverse()];
    }
    const x = (line) => (chart.x === "step" ? line.x.map((step) => fromStep(line.run, step)) : line.x);
    return uPlot.join(lines.map((line) => [x(line), positive(line.y)]));
  }

  // Runs have values at other steps: the nearest one of each line is what the legend shows.
  function nearest(plot, series, hovered) {
    if (series === 0) return hovered;
    const values = plot.data[series];
    for (let away = 0; away < values.length; away++) {
      if (values[hovered - away] != null) return hovered - away;
      if (values[hovered + away] != null) return hovered + away;
    }
    return hovered;
  }

  function drawResumes(plot) {
    const { ctx, bbox } = plot, ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.textAlign = "left";
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.lineWidth = ratio;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    page.runs.forEach((run, place) => {
      ctx.strokeStyle = ctx.fillStyle = several ? colour(place) : css("--muted");
      for (const step of run.resumed) {
        const left = Math.round(plot.valToPos(fromStep(place, step), "x", true)) + 0.5;
        if (left < bbox.left || left > bbox.left + bbox.width) continue;
        ctx.beginPath();
        ctx.moveTo(left, bbox.top);
        ctx.lineTo(left, bbox.top + bbox.height);
        ctx.stroke();
        if (plot.width > 600) ctx.fillText("resumed", left + 4 * ratio, bbox.top + 11 * ratio);
      }
    });
    ctx.restore();
  }

  function options(chart, lines, isLog, holder) {
    const axis = { stroke: css("--muted"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const shown = lines[0].look === "area" ? [...lines].reverse() : lines;
    // Without a cursor the legend shows what was last, but of marks, which were at steps of their own.
    const value = (line, place) => (plot, drawn, series, index) => {
      const values = line.look === "area" ? line.y : plot.data[place + 1];
      return formatted((line.look === "bars" || line.look === "marks") && index == null ? null : values[index ?? nearest(plot, place + 1, plot.data[0].length - 1)]);
    };
    const series = shown.map((line, place) => ({ label: label(line, chart), ...look(line, place, shown), value: value(line, place) }));
    const xName = chart.x === "step" ? { steps: "step", tokens: "tokens", hours: "hours" }[view.over] : chart.x;
    return {
      width: holder.clientWidth,
      height: holder.closest(".first") ? 320 : 230,
      padding: [8, 18, 0, 0],
      cursor: {
        sync: chart.x === "step" ? { key: "steps", setSeries: false } : undefined,
        drag: { x: true, y: false, dist: 6 },
        points: { size: 7 },
        dataIdx: nearest,
      },
      scales: { x: { time: false }, y: { distr: isLog ? 3 : 1, ...(isLog ? {} : { range: span(lines) }) } },
      axes: [
        { ...axis, values: (plot, ticks) => onAxis(ticks), space: 60, size: 30, ...(xName === "hours" ? {} : { incrs: WHOLE }) },
        { ...axis, values: (plot, ticks) => onAxis(ticks), size: (plot, texts) => 16 + 7 * Math.max(3, ...(texts || []).map((t) => t.length)) },
      ],
      series: [{ label: xName, value: (plot, x) => formatted(x ?? (lines[0].look === "bars" ? null : plot.data[0].at(-1))) }, ...series],
      legend: { markers: { width: 0, fill: (plot, place) => plot.series[place].fill?.(plot, place) ?? plot.series[place].stroke(plot, place) } },
      hooks: { draw: chart.x === "step" ? [drawResumes] : [] },
    };
  }

  // Bars and areas stand on zero; lines leave a little room.
  function span(lines) {
    const onZero = lines[0].look === "area" || lines[0].look === "bars";
    return (plot, low, high) => {
      if (low == null) return [0, 1];
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      return [onZero || (low >= 0 && low - room < 0) ? 0 : low - room, high + room];
    };
  }

  class Plot {
    constructor(chart) {
      this.chart = chart;
      this.figure = document.getElementById(`chart-${chart.id}`);
      this.holder = this.figure.querySelector(".plot");
      this.output = this.figure.querySelector("output");
      this.isLog = chart.log;
      this.place = null;
      const button = this.figure.querySelector(".log");
      if (button) button.addEventListener("click", () => {
        this.isLog = !this.isLog;
        button.setAttribute("aria-pressed", this.isLog);
        this.make();
      });
      this.holder.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.fit()).observe(this.holder);
      this.make();
    }

    make() {
      this.plot?.destroy();
      this.place = null;
      const lines = this.chart.lines.filter((line) => line.x.length && (view.eachStep || line.look !== "raw"));
      this.lines = lines;
      this.plot = new uPlot(options(this.chart, lines, this.isLog, this.holder), numbers(this.chart, lines, this.isLog), this.holder);
      this.legend();
    }

    fit() {
      const { width, height } = this.plot;
      if (this.holder.clientWidth && this.holder.clientWidth !== width) this.plot.setSize({ width: this.holder.clientWidth, height });
    }

    // Rows of the legend are switches. With several runs, a run's smoothed line speaks for its steps too.
    legend() {
      const rows = this.holder.querySelectorAll(".u-legend .u-series");
      rows.forEach((row, place) => {
        const line = this.lines[place - 1], head = row.querySelector("th");
        if (place === 0) return;
        if (several && line.look === "raw") row.hidden = true, row.style.display = "none";
        head.tabIndex = 0;
        head.setAttribute("role", "switch");
        head.setAttribute("aria-checked", "true");
        const follow = () => {
          const isShown = this.plot.series[place].show;
          head.setAttribute("aria-checked", isShown);
          if (several && line.look === "smooth" && this.lines[place - 2]?.look === "raw") this.plot.setSeries(place - 1, { show: isShown });
        };
        head.addEventListener("click", () => setTimeout(follow));
        head.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          event.stopPropagation();
          this.plot.setSeries(place, { show: !this.plot.series[place].show });
          follow();
        });
      });
    }

    key(event) {
      const scale = this.plot.scales.x, width = scale.max - scale.min, xs = this.plot.data[0];
      const at = this.place ?? scale.min + width / 2;
      const jump = (event.shiftKey ? 0.1 : 0.01) * width;
      const moves = { ArrowLeft: at - jump, ArrowRight: at + jump, Home: scale.min, End: scale.max };
      if (event.key in moves) this.read(Math.min(scale.max, Math.max(scale.min, moves[event.key])));
      else if (event.key === "+" || event.key === "=") this.plot.setScale("x", { min: at - width / 4, max: at + width / 4 });
      else if (event.key === "-") this.plot.setScale("x", { min: Math.max(xs[0], at - width), max: Math.min(xs[xs.length - 1], at + width) });
      else if (event.key === "0" || event.key === "Escape") this.plot.setScale("x", { min: xs[0], max: xs[xs.length - 1] });
      else return;
      event.preventDefault();
    }

    read(place) {
      this.place = place;
      this.plot.setCursor({ left: this.plot.valToPos(place, "x"), top: this.plot.bbox.height / 3 / (devicePixelRatio || 1) });
      this.output.textContent = [...this.holder.querySelectorAll(".u-legend .u-series")]
        .filter((row) => !row.hidden)
        .map((row) => `${row.querySelector(".u-label").textContent}: ${row.querySelector(".u-value").textContent}`)
        .join(", ");
    }
  }

  const plots = page.charts.map((chart) => new Plot(chart));
  const remake = () => plots.forEach((plot) => plot.make());
  document.querySelectorAll("input[name=over]").forEach((input) => input.addEventListener("change", () => { view.over = input.value; remake(); }));
  document.getElementById("each-step")?.addEventListener("change", (event) => { view.eachStep = event.target.checked; remake(); });
  dark.addEventListener("change", remake);
  document.documentElement.dataset.plots = plots.length;
})();
