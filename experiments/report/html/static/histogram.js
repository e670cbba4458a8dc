// Latent weights of a layer at an epoch, by size and by whether they flip.

class Histogram {
  constructor(panel, latent, arms) {
    Object.assign(this, { panel, latent });
    const kept =
      panel.of > panel.epochs.length
        ? `; ${panel.epochs.length} of ${panel.of} recorded epochs`
        : "";
    this.name = arms[panel.arm].name;
    this.caption = el("p", { class: "note" });
    this.host = el("div", {});
    this.figure = el(
      "figure",
      { class: "panel histogram" },
      el("figcaption", {}, this.name, " ", el("small", {}, `seed ${panel.seed}${kept}`)),
      this.host,
      this.caption,
    );
    this.tip = new Tip(this.figure);
    drawn(this.host, (width) => this.draw(width));
  }

  show(view) {
    this.view = { ...view };
    if (this.width) this.draw(this.width);
    this.caption.textContent = this.said();
  }

  get row() {
    return this.latent.layers.indexOf(this.view.layer);
  }

  get column() {
    return nearest(this.panel.epochs, this.view.epoch);
  }

  get counts() {
    return this.row < 0 ? null : this.panel.counts[this.row][this.column];
  }

  /** Share in percent of the fullest bar over all epochs and arms, so that bars compare. */
  highest() {
    if (this.row < 0) return 1;
    const { bins } = this.latent;
    const frames = this.latent.panels.flatMap((panel) => panel.counts[this.row]).filter(known);
    return Math.max(
      1e-9,
      ...frames.map((counts) => {
        const size = sum(counts);
        return size ? Math.max(...stacked(counts, bins).map((n) => (100 * n) / size)) : 0;
      }),
    );
  }

  said() {
    const { counts } = this;
    if (!counts) return `No histogram of ${this.view.layer}.`;
    const { bins, kinds } = this.latent,
      size = sum(counts) || 1;
    const shares = kinds.map(
      (kind, k) =>
        `${kind.toLowerCase()} ${percent((100 * sum(counts.slice(k * bins, (k + 1) * bins))) / size)}`,
    );
    const rms = this.panel.limits[this.row][this.column] / this.latent.rms;
    return `Epoch ${this.panel.epochs[this.column]}: ${shares.join(", ")}; ${number(size, 9)} weights, rms ${number(rms)}`;
  }

  draw(width) {
    const height = Math.round(Math.min(260, Math.max(180, width * 0.48)));
    const box = { left: 46, right: width - 12, top: 8, bottom: height - 36 };
    this.width = width;
    this.box = box;
    const { counts } = this,
      { bins, rms, kinds } = this.latent;
    const root = svg("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `Histogram of latent weights. ${this.name}. ${this.said()}`,
    });
    const top = this.highest() * 1.03,
      y = (share) => box.bottom - ((box.bottom - box.top) * share) / top;
    for (const tick of ticks(0, top, 4)) {
      root.append(
        svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      );
      root.append(
        svg("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, `${number(tick)} %`),
      );
    }
    const x = (value) => box.left + ((box.right - box.left) * (value + rms)) / (2 * rms);
    for (let tick = -rms; tick <= rms; tick += rms / 4)
      root.append(
        svg(
          "text",
          { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" },
          number(tick).replace("-", "−"),
        ),
      );
    root.append(
      svg(
        "text",
        { x: x(0), y: height - 3, "text-anchor": "middle" },
        "latent weight / rms of the layer",
      ),
    );
    const step = (box.right - box.left) / bins;
    if (counts) {
      const size = sum(counts) || 1,
        base = new Array(bins).fill(0);
      kinds.forEach((_, k) => {
        for (let bin = 0; bin < bins; bin++) {
          const share = (100 * counts[k * bins + bin]) / size;
          if (share)
            root.append(
              svg("rect", {
                class: `kind${k}`,
                x: box.left + bin * step + 0.5,
                width: Math.max(0.5, step - 1),
                y: y(base[bin] + share),
                height: y(base[bin]) - y(base[bin] + share),
              }),
            );
          base[bin] += share;
        }
      });
    }
    root.append(
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    );
    root.append(svg("line", { class: "cursor", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
    root.addEventListener("pointermove", (event) => this.over(event, step));
    root.addEventListener("pointerleave", () => this.tip.hide());
    this.host.replaceChildren(root);
  }

  over(event, step) {
    const bounds = this.host.getBoundingClientRect();
    const at = (event.clientX - bounds.left) * (this.width / bounds.width),
      bin = Math.floor((at - this.box.left) / step);
    const { bins, kinds, rms } = this.latent;
    if (!this.counts || bin < 0 || bin >= bins) return this.tip.hide();
    const [from, to] = [bin, bin + 1].map((b) =>
      number((2 * rms * b) / bins - rms).replace("-", "−"),
    );
    this.tip.show(
      at,
      this.host.offsetTop + 10,
      el("b", {}, `${from} to ${to} rms`),
      kinds.map((kind, k) =>
        el(
          "div",
          {},
          el("span", { class: `key key${k}` }, el("i", {}), kind),
          el("span", {}, number(this.counts[k * bins + bin], 9)),
        ),
      ),
    );
  }
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const stacked = (counts, bins) =>
  Array.from({ length: bins }, (_, bin) => sum(counts.filter((_, i) => i % bins === bin)));
