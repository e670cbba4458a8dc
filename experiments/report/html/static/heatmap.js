// Shares of weights by layer and epoch; a click chooses both.

/** The weights' section: heat maps, and histograms where the run recorded them, moved by one slider. */
function weightsSection(layers, latent, arms) {
  const names = layers ? layers.layers : latent.layers;
  const view = { kind: layers && layers.kinds[0].key, layer: names[0], epoch: null };
  const maps = layers ? layers.maps.map((map) => new HeatMap(map, layers, arms, choose)) : [];
  const histograms = latent ? latent.panels.map((panel) => new Histogram(panel, latent, arms)) : [];
  const epochs = latent
    ? union(latent.panels.map((panel) => panel.epochs))
    : union(layers.maps.map((map) => map.epochs));
  view.epoch = epochs.at(-1);
  const slider = el("input", {
    type: "range",
    id: "epoch",
    min: 0,
    max: epochs.length - 1,
    value: epochs.length - 1,
    step: 1,
    oninput: () => choose({ epoch: epochs[slider.value] }),
  });
  const shown = el("output", { for: "epoch" });
  const layer = el(
    "select",
    { onchange: () => choose({ layer: layer.value }) },
    names.map((name) => el("option", { value: name }, elided(name, 60))),
  );
  const ramp = el("span", { class: "ramp" }, el("span", {}), el("i", {}), el("span", {}));

  function choose(wanted) {
    Object.assign(view, wanted);
    slider.value = nearest(epochs, view.epoch);
    view.epoch = epochs[slider.value];
    layer.value = view.layer;
    shown.textContent = `${view.epoch} of ${epochs.at(-1)}`;
    slider.setAttribute("aria-valuetext", `epoch ${shown.textContent}`);
    if (layers)
      [ramp.firstChild, ramp.lastChild].forEach((end, i) => {
        end.textContent = `${number(ends(layers, view.kind)[i])} %`;
      });
    for (const part of [...maps, ...histograms]) part.show(view);
  }

  const kinds =
    layers &&
    el(
      "fieldset",
      {},
      el("legend", { hidden: true }, "What the heat map shows"),
      layers.kinds.map(({ key, title }) =>
        el(
          "label",
          {},
          el("input", {
            type: "radio",
            name: "kind",
            value: key,
            checked: key === view.kind,
            onchange: () => choose({ kind: key }),
          }),
          title,
        ),
      ),
    );
  choose({});
  return [
    maps.length
      ? [
          el(
            "p",
            { class: "note" },
            "Share of each layer's binary weights, mean over the seeds, from the input (top) to the output. Choose a layer and an epoch by a click, or below.",
          ),
          el("div", { class: "controls" }, kinds, ramp),
          el(
            "div",
            { class: "panels" },
            maps.map((map) => map.figure),
          ),
        ]
      : null,
    el(
      "div",
      { class: "controls" },
      el("label", {}, "Layer", layer),
      el("label", { class: "slider" }, "Epoch", slider, shown),
    ),
    histograms.length
      ? [
          el(
            "p",
            { class: "note" },
            `Latent weights of the chosen layer at the chosen epoch, by their size in root mean squares (rms) of the layer; the outermost bars also hold what lies beyond.`,
          ),
          el(
            "p",
            {},
            latent.kinds.map((kind, i) => [
              el("span", { class: `key key${i}` }, el("i", {}), kind),
              " \u2002",
            ]),
          ),
          el(
            "div",
            { class: "panels" },
            histograms.map((histogram) => histogram.figure),
          ),
        ]
      : null,
  ].flat();
}

/** Where the colours of a kind begin and end, in percent: the same for all arms. */
function ends(layers, kind) {
  const all = layers.maps.flatMap((map) => (map.values[kind] || []).flat()).filter(known);
  const low = Math.min(...all),
    high = Math.max(...all);
  return high < 10
    ? [0, Math.ceil(high) || 1]
    : [10 * Math.floor(low / 10), 10 * Math.ceil(high / 10)];
}

class HeatMap {
  constructor(map, layers, arms, choose) {
    Object.assign(this, { map, layers, choose });
    this.caption = el("small", { role: "status" });
    this.host = el("div", {});
    this.figure = el(
      "figure",
      { class: "panel" },
      el("figcaption", {}, arms[map.arm].name, " ", this.caption),
      this.host,
    );
    this.tip = new Tip(this.figure);
    drawn(this.host, (width) => this.draw(width));
  }

  show(view) {
    this.view = { ...view };
    this.caption.textContent = this.said(
      this.layers.layers.indexOf(view.layer),
      nearest(this.map.epochs, view.epoch),
    );
    if (this.width) this.draw(this.width);
  }

  said(row, column) {
    const values = this.map.values[this.view.kind];
    if (!values || row < 0) return "";
    return `${elided(this.layers.layers[row], 24)}, epoch ${this.map.epochs[column]}: ${percent(values[row][column])}`;
  }

  draw(width) {
    const { layers: names } = this.layers,
      { epochs } = this.map;
    const rowHeight = Math.max(7, Math.min(24, Math.floor(320 / names.length)));
    const every = Math.ceil(13 / rowHeight); // rows per label
    const letters = Math.min(width < 420 ? 14 : 20, Math.max(...names.map((n) => n.length)));
    const box = {
      left: letters * 7 + 8,
      right: width - 8,
      top: 4,
      bottom: 4 + rowHeight * names.length,
    };
    const cell = (box.right - box.left) / epochs.length;
    Object.assign(this, { width, box, rowHeight, cell });
    const root = svg("svg", {
      viewBox: `0 0 ${width} ${box.bottom + 36}`,
      role: "img",
      "aria-label": `${this.figure.textContent}: a row per layer, a column per epoch`,
    });
    const values = this.map.values[this.view.kind];
    if (values) {
      const [low, high] = ends(this.layers, this.view.kind);
      const shares = values.map((row) =>
        row.map((v) => (known(v) ? (v - low) / (high - low || 1) : null)),
      );
      root.append(
        svg("image", {
          href: pixels(shares),
          x: box.left,
          y: box.top,
          width: box.right - box.left,
          height: box.bottom - box.top,
          preserveAspectRatio: "none",
        }),
      );
    }
    root.append(
      svg("rect", {
        class: "frame",
        x: box.left,
        y: box.top,
        width: box.right - box.left,
        height: box.bottom - box.top,
      }),
    );
    names.forEach((name, i) => {
      if (i % every === 0)
        root.append(
          svg(
            "text",
            { x: box.left - 6, y: box.top + (i + 0.5) * rowHeight + 4, "text-anchor": "end" },
            elided(name, letters),
          ),
        );
    });
    const labelled = epochTicks(epochs[0], epochs.at(-1), box.right - box.left, 45).map((tick) =>
      nearest(epochs, tick),
    );
    for (const i of new Set(labelled))
      root.append(
        svg(
          "text",
          { x: box.left + (i + 0.5) * cell, y: box.bottom + 16, "text-anchor": "middle" },
          epochs[i],
        ),
      );
    root.append(
      svg(
        "text",
        { x: (box.left + box.right) / 2, y: box.bottom + 33, "text-anchor": "middle" },
        "epoch",
      ),
    );
    root.append(...this.marks());
    root.addEventListener("pointermove", (event) => this.over(event));
    root.addEventListener("pointerleave", () => this.tip.hide());
    root.addEventListener("click", (event) => this.click(event));
    this.host.replaceChildren(root);
  }

  marks() {
    const { box, cell, rowHeight, view } = this;
    const row = this.layers.layers.indexOf(view.layer),
      column = nearest(this.map.epochs, view.epoch);
    const before = view.epoch < this.map.epochs[0]; // the initial weights have no metrics
    const x = box.left + (before ? 0 : column) * cell;
    const marked = [{ x, y: box.top, width: before ? 0 : cell, height: box.bottom - box.top }];
    if (row >= 0)
      marked.push({
        x: box.left,
        y: box.top + row * rowHeight,
        width: box.right - box.left,
        height: rowHeight,
      });
    // Black in white is seen on every colour.
    return ["around", "chosen"].flatMap((kind) =>
      marked.map((place) => svg("rect", { class: kind, ...place })),
    );
  }

  place(event) {
    const bounds = this.host.getBoundingClientRect(),
      scale = this.width / bounds.width;
    const x = (event.clientX - bounds.left) * scale,
      y = (event.clientY - bounds.top) * scale;
    const column = Math.floor((x - this.box.left) / this.cell),
      row = Math.floor((y - this.box.top) / this.rowHeight);
    const inside =
      column >= 0 && column < this.map.epochs.length && row >= 0 && row < this.layers.layers.length;
    return inside ? { row, column, x, y } : null;
  }

  over(event) {
    const at = this.place(event);
    if (!at) return this.tip.hide();
    this.tip.show(at.x, this.host.offsetTop + at.y + 14, this.said(at.row, at.column));
  }

  click(event) {
    const at = this.place(event);
    if (at) this.choose({ layer: this.layers.layers[at.row], epoch: this.map.epochs[at.column] });
  }
}
