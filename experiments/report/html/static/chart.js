// Curves over the epochs, with a cursor for pointer and arrow keys.

const MOST_NAMED = 10; // lines in a tip
const MOST_BANDS = 8; // lines that have bands: more would hide each other

const swatch = (arm) =>
  svg(
    "svg",
    { viewBox: "0 0 28 10", "aria-hidden": "true" },
    svg("line", {
      x1: 0,
      x2: 28,
      y1: 5,
      y2: 5,
      class: "line",
      "stroke-dasharray": arm.dash,
      vars: { "--line": arm.color },
    }),
  );

/** Buttons that hide and show lines in all charts; `changed` is called with the hidden arms. */
function legend(arms, shown, changed) {
  const hidden = new Set();
  const button = (place) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": "true",
        onclick(event) {
          if (!hidden.delete(place)) hidden.add(place);
          event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(place)));
          changed(hidden);
        },
      },
      swatch(arms[place]),
      arms[place].name,
    );
  return el(
    "ul",
    { class: "legend", "aria-label": "Lines" },
    shown.map((place) => el("li", {}, button(place))),
  );
}

/** All charts of a page under one legend. */
function charts(list, arms) {
  const made = list.map((chart) => new LineChart(chart, arms));
  const shown = union(list.map((chart) => chart.lines.map((line) => line.arm)));
  const redraw = (hidden) => made.forEach((chart) => chart.hide(hidden));
  return [
    legend(arms, shown, redraw),
    el(
      "div",
      { class: "panels" },
      made.map((chart) => chart.figure),
    ),
  ];
}

class LineChart {
  constructor(chart, arms) {
    Object.assign(this, { chart, arms, hidden: new Set(), at: null });
    this.epochs = union(chart.lines.map((line) => line.epochs));
    const values = chart.lines.flatMap((line) => line.mean).filter(known);
    // A loss that falls by orders of magnitude shows its end only in a logarithmic scale.
    const low = Math.min(...values),
      high = Math.max(...values);
    this.log = chart.unit === "" && low > 0 && high / low > 50;
    const scale = this.log ? ", logarithmic" : "";
    this.figure = el(
      "figure",
      { class: "panel" },
      el(
        "figcaption",
        {},
        chart.title,
        " ",
        el("small", {}, chart.unit ? `in ${chart.unit}` : scale.slice(2)),
      ),
    );
    this.host = el("div", {
      tabindex: 0,
      role: "slider",
      "aria-label": `${chart.title} by epoch`,
      "aria-valuemin": this.epochs[0],
      "aria-valuemax": this.epochs.at(-1),
      "aria-valuenow": this.epochs.at(-1),
      onkeydown: (event) => this.key(event),
      onblur: () => this.leave(),
    });
    this.figure.append(this.host);
    this.tip = new Tip(this.figure);
    if (values.length) drawn(this.host, (width) => this.draw(width));
    else this.host.replaceWith(el("p", { class: "note" }, "No finite value."));
  }

  get lines() {
    return this.chart.lines.filter((line) => !this.hidden.has(line.arm));
  }

  hide(hidden) {
    this.hidden = hidden;
    if (this.width) this.draw(this.width);
  }

  draw(width) {
    const height = Math.round(Math.min(300, Math.max(200, width * 0.55)));
    const box = { left: 46, right: width - 12, top: 10, bottom: height - 36 };
    this.width = width;
    this.box = box;
    this.scales(box);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const tick of this.yTicks) {
      root.append(
        svg("line", {
          class: "grid",
          x1: box.left,
          x2: box.right,
          y1: this.y(tick),
          y2: this.y(tick),
        }),
      );
      root.append(
        svg("text", { x: box.left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, number(tick)),
      );
    }
    for (const tick of epochTicks(this.epochs[0], this.epochs.at(-1), box.right - box.left))
      root.append(
        svg(
          "text",
          { x: this.x(tick), y: box.bottom + 17, "text-anchor": "middle" },
          number(tick, 6),
        ),
      );
    root.append(
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    );
    root.append(
      svg(
        "text",
        { x: (box.left + box.right) / 2, y: height - 3, "text-anchor": "middle" },
        "epoch",
      ),
    );
    const bands = this.lines.length <= MOST_BANDS;
    for (const line of this.lines) root.append(...this.drawLine(line, bands));
    this.over = svg("g", {});
    root.append(this.over);
    root.addEventListener("pointermove", (event) => this.point(event));
    root.addEventListener("pointerdown", (event) => this.point(event));
    root.addEventListener("pointerleave", () => this.leave());
    this.host.replaceChildren(root);
    if (this.at !== null) this.show(this.at);
  }

  scales(box) {
    const values = this.lines.flatMap((line) =>
      line.mean.flatMap((m, i) => {
        const spread = line.std && !this.log ? line.std[i] : 0;
        return known(m) ? [m - spread, m + spread] : [];
      }),
    );
    let low = Math.min(...values),
      high = Math.max(...values);
    if (!values.length) [low, high] = this.log ? [1, 10] : [0, 1];
    if (this.chart.unit === "%") [low, high] = [Math.max(0, low), Math.min(100, high)];
    const to = this.log ? Math.log10 : (v) => v;
    if (high - low < 1e-9 * Math.abs(high))
      [low, high] = this.log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    if (this.log) {
      const powers = ticks(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)), 6).filter(
        Number.isInteger,
      );
      this.yTicks = powers.map((p) => 10 ** p).filter((t) => t >= low * 0.999 && t <= high * 1.001);
      if (this.yTicks.length < 2) this.yTicks = [low, high];
    } else {
      const pad = (high - low) * 0.04;
      this.yTicks = ticks(low, high, 5);
      [low, high] = [low - pad, high + pad];
    }
    const first = this.epochs[0],
      span = this.epochs.at(-1) - first;
    this.x = (e) =>
      span ? box.left + (box.right - box.left) * ((e - first) / span) : (box.left + box.right) / 2;
    this.y = (v) =>
      box.bottom - (box.bottom - box.top) * ((to(v) - to(low)) / (to(high) - to(low)));
    this.within = (v) => Math.min(box.bottom, Math.max(box.top, v));
  }

  drawLine(line, band) {
    const arm = this.arms[line.arm],
      vars = { "--line": arm.color };
    const drawn = [];
    const points = line.mean.map((m, i) =>
      known(m) ? [this.x(line.epochs[i]), this.y(m), i] : null,
    );
    const runs = [[]];
    for (const point of points)
      point ? runs.at(-1).push(point) : runs.at(-1).length && runs.push([]);
    for (const run of runs.filter((r) => r.length)) {
      if (band && line.std && run.length > 1) {
        const edge = (sign) =>
          run.map(([x, , i]) => {
            const value = line.mean[i] + sign * (line.std[i] || 0);
            return [x, this.log && value <= 0 ? this.box.bottom : this.within(this.y(value))];
          });
        drawn.push(
          svg("polygon", {
            class: "band",
            vars,
            points: [...edge(1), ...edge(-1).reverse()]
              .map((p) => p.map((v) => v.toFixed(1)))
              .join(" "),
          }),
        );
      }
      if (run.length > 1) {
        const path = run.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
        drawn.push(
          svg("polyline", { class: "line", vars, points: path, "stroke-dasharray": arm.dash }),
        );
      } else drawn.push(svg("circle", { class: "dot", vars, cx: run[0][0], cy: run[0][1], r: 4 }));
    }
    return drawn;
  }

  point(event) {
    const bounds = this.host.getBoundingClientRect();
    const at = (event.clientX - bounds.left) * (this.width / bounds.width);
    this.show(nearest(this.epochs.map(this.x), at));
  }

  key(event) {
    const last = this.epochs.length - 1,
      at = this.at === null ? last : this.at;
    const to = {
      ArrowLeft: at - 1,
      ArrowDown: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at + 1,
      Home: 0,
      End: last,
      PageDown: at - 10,
      PageUp: at + 10,
    }[event.key];
    if (event.key === "Escape") this.leave();
    if (to === undefined) return;
    event.preventDefault();
    this.show(Math.min(last, Math.max(0, to)));
  }

  show(at) {
    this.at = at;
    const epoch = this.epochs[at];
    const here = this.lines
      .map((line) => ({ line, i: line.epochs.indexOf(epoch) }))
      .filter(({ line, i }) => i >= 0 && known(line.mean[i]))
      .sort((a, b) => b.line.mean[b.i] - a.line.mean[a.i]);
    const x = this.x(epoch);
    this.over.replaceChildren(
      svg("line", { class: "cursor", x1: x, x2: x, y1: this.box.top, y2: this.box.bottom }),
      ...here.map(({ line, i }) =>
        svg("circle", {
          class: "dot",
          vars: { "--line": this.arms[line.arm].color },
          cx: x,
          cy: this.y(line.mean[i]),
          r: 4,
        }),
      ),
    );
    const rows = here
      .slice(0, MOST_NAMED)
      .map(({ line, i }) => [this.arms[line.arm], this.value(line, i)]);
    const more =
      here.length > MOST_NAMED ? [el("div", {}, `and ${here.length - MOST_NAMED} more below`)] : [];
    this.tip.show(
      x,
      this.host.offsetTop + this.box.top,
      el("b", {}, `epoch ${epoch}`),
      rows.map(([arm, value]) =>
        el("div", {}, swatch(arm), el("span", {}, arm.name), el("span", {}, value)),
      ),
      more,
    );
    this.host.setAttribute("aria-valuenow", epoch);
    this.host.setAttribute(
      "aria-valuetext",
      `epoch ${epoch}: ${rows.map(([arm, value]) => `${arm.name} ${value}`).join(", ")}`,
    );
  }

  value(line, i) {
    const mean = inUnit(line.mean[i], this.chart.unit);
    return line.std && known(line.std[i]) ? `${mean} ± ${number(line.std[i], 2)}` : mean;
  }

  leave() {
    this.at = null;
    this.tip.hide();
    if (this.over) this.over.replaceChildren();
  }
}
