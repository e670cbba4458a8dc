// Tables and lists.

/** A table; `numbers` are the places of columns that hold numbers, `best` of rows in bold. */
function table(heads, rows, numbers, best = []) {
  const align = (i) => (numbers.includes(i) ? "number" : null);
  const fold = (cell) => (typeof cell === "string" && cell.length > 40 ? "long" : null);
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" },
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((head, i) => el("th", { scope: "col", class: align(i) }, head)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row, k) =>
          el(
            "tr",
            { class: best.includes(k) ? "best" : null },
            row.map((cell, i) =>
              i
                ? el("td", { class: align(i) || fold(cell) }, cell)
                : el("th", { scope: "row", class: fold(cell) }, cell),
            ),
          ),
        ),
      ),
    ),
  );
}

const pairs = (items) =>
  el(
    "dl",
    {},
    items.map(({ field, value, default: usual }) =>
      el(
        "div",
        { class: usual === false ? "changed" : null },
        el("dt", {}, field),
        el("dd", {}, value),
      ),
    ),
  );

/** A count in four digits, as 36.86 k or 1.677 G. */
function large(value, unit = "") {
  const power = value < 1e4 ? 0 : Math.min(6, Math.floor(Math.log10(value) / 3));
  return `${number(value / 1000 ** power, 4)} ${["", "k", "M", "G", "T", "P", "E"][power]}${unit}`.trim();
}

function networkParts(network) {
  if (network.uncounted)
    return [
      el("h3", {}, network.name),
      el("p", { class: "note" }, `Not counted: ${network.uncounted}`),
    ];
  const t = network.total;
  const tile = (value, label) =>
    el("div", { class: "tile" }, el("b", {}, value), el("span", {}, label));
  const columns = [
    "binary_params",
    "real_params",
    "stored_bytes",
    "training_bytes",
    "binary_macs",
    "float_macs",
  ];
  return [
    el("h3", {}, `${network.name}, for one image of ${network.input.slice(1).join(" × ")}`),
    el(
      "div",
      { class: "tiles" },
      tile(large(t.binary_params), "1-bit weights"),
      tile(large(t.real_params), "real parameters"),
      tile(large(t.stored_bytes, "B"), "to store it, 1-bit weights as bits"),
      tile(large(t.training_bytes, "B"), "in training, without gradients and optimizer state"),
      tile(large(t.binary_macs), "binary multiply-accumulates"),
      tile(large(t.float_macs), "real multiply-accumulates"),
    ),
    el(
      "details",
      {},
      el("summary", {}, "By layer"),
      table(
        [
          "layer",
          "type",
          "1-bit weights",
          "real parameters",
          "stored",
          "in training",
          "binary MAC",
          "real MAC",
        ],
        network.layers.map((row) => [
          row.name,
          row.kind,
          ...columns.map((key) =>
            row[key] ? large(row[key], key.endsWith("bytes") ? "B" : "") : "",
          ),
        ]),
        [2, 3, 4, 5, 6, 7],
      ),
    ),
    network.left_out ? el("p", { class: "note" }, `and ${network.left_out} more layers`) : null,
  ];
}

function configParts(config) {
  const changed = config.filter((item) => !item.default),
    usual = config.filter((item) => item.default);
  return [
    pairs(changed),
    usual.length
      ? el(
          "details",
          {},
          el("summary", {}, `${usual.length} fields at their defaults`),
          pairs(usual),
        )
      : null,
  ];
}

/** A section with a heading that the list of contents names. */
const section = (id, title, children, flow = false) => ({
  id,
  title,
  node: el("section", { id, class: flow ? "flow" : null }, el("h2", {}, title), children),
});

const contents = (sections) =>
  el(
    "nav",
    { "aria-label": "Contents" },
    sections.map(({ id, title }) => el("a", { href: `#${id}` }, title)),
  );
