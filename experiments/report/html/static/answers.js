// What the networks answer: confusion matrices, and images right and wrong.

const MOST_IN_TABLE = 26; // classes; larger matrices are pictures

function answersSection(data) {
  const said = el(
    "p",
    { class: "note" },
    "Rows: class. Columns: answer. Colour: share of the row.",
  );
  return [
    data.answers.some((found) => found.matrix) ? said : null,
    el(
      "div",
      { class: "panels" },
      data.answers.map((found) => {
        const seeds =
          found.seeds.length > 1 ? `sum of ${found.seeds.length} seeds` : `seed ${found.seeds[0]}`;
        const right = `${number(found.right, 9)} of ${number(found.images, 9)} right, ${seeds}`;
        return el(
          "figure",
          { class: "panel" },
          el("figcaption", {}, data.arms[found.arm].name, " ", el("small", {}, right)),
          found.matrix &&
            (data.classes.length <= MOST_IN_TABLE
              ? matrixTable(found.matrix, data.classes)
              : matrixPicture(found.matrix, data.classes)),
          found.unanswered
            ? el(
                "p",
                { class: "note" },
                `${found.unanswered} images got no answer: their logits were not finite.`,
              )
            : null,
          found.matrix && data.classes.length <= MOST_IN_TABLE
            ? null
            : confused(found, data.classes),
        );
      }),
    ),
  ];
}

/** Counts by class (row) and answer (column); colours are shares of the row. */
function matrixTable(matrix, classes) {
  const narrow = classes.map((name) => elided(name, 9));
  const cell = (count, row) => {
    const share = row ? count / row : 0,
      [r, g, b] = viridis(share);
    const made = el("td", { class: count ? null : "zero" }, String(count));
    if (count)
      Object.assign(made.style, {
        background: `rgb(${r} ${g} ${b})`,
        color: share > 0.55 ? "#111" : "#fff",
      });
    return made;
  };
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Confusion matrix" },
    el(
      "table",
      { class: "matrix" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("td", {}),
          narrow.map((name, i) => el("th", { scope: "col", title: classes[i] }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        matrix.map((row, i) => {
          const all = sum(row);
          return el(
            "tr",
            {},
            el("th", { scope: "row", title: classes[i] }, narrow[i]),
            row.map((count) => cell(count, all)),
          );
        }),
      ),
    ),
  );
}

function matrixPicture(matrix, classes) {
  const shares = matrix.map((row) => row.map((count) => (count ? count / sum(row) : null)));
  const size = classes.length,
    host = el("div", {});
  const picture = svg(
    "svg",
    {
      viewBox: `0 0 ${size} ${size}`,
      role: "img",
      "aria-label": "Confusion matrix: rows are classes, columns are answers",
    },
    svg("image", { href: pixels(shares), width: size, height: size }),
    svg("rect", {
      class: "frame",
      width: size,
      height: size,
      "vector-effect": "non-scaling-stroke",
    }),
  );
  host.append(picture);
  host.className = "panel";
  const tip = new Tip(host);
  picture.addEventListener("pointermove", (event) => {
    const bounds = picture.getBoundingClientRect(),
      outer = host.getBoundingClientRect();
    const [row, column] = [
      (event.clientY - bounds.top) / bounds.height,
      (event.clientX - bounds.left) / bounds.width,
    ].map((v) => Math.min(size - 1, Math.max(0, Math.floor(v * size))));
    tip.show(
      event.clientX - outer.left,
      event.clientY - outer.top + 14,
      `${classes[row]} → ${classes[column]}: ${matrix[row][column]}`,
    );
  });
  picture.addEventListener("pointerleave", () => tip.hide());
  return host;
}

function confused(found, classes) {
  if (!found.confused.length) return null;
  const rows = found.confused.map(([label, answer, count]) => [
    classes[label],
    classes[answer],
    number(count, 9),
  ]);
  return el(
    "details",
    { open: !found.matrix },
    el("summary", {}, "Most frequent confusions"),
    table(["class", "answer", "images"], rows, [2]),
  );
}

/** Images of the first seed of each arm, wrong and right. */
function examplesSection(data) {
  return data.examples
    .map((found) => {
      const groups = [
        ["Wrong, the surest first", (x) => x.label !== x.predicted],
        ["Right, the least sure first", (x) => x.label === x.predicted],
      ];
      return groups.map(([title, wanted]) => {
        const images = found.images.filter(wanted);
        return images.length
          ? [
              el(
                "h3",
                {},
                `${data.arms[found.arm].name}, seed ${found.seed}: ${title.toLowerCase()}`,
              ),
              el(
                "ul",
                { class: "images" },
                images.map((x) => example(x, data.classes)),
              ),
            ]
          : [];
      });
    })
    .flat(3);
}

function example(x, classes) {
  const label = classes[x.label],
    answer = known(classes[x.predicted]) ? classes[x.predicted] : "no answer";
  const said = x.label === x.predicted ? `${label}` : `${answer}, but is ${label}`;
  return el(
    "li",
    {},
    el("img", { src: `data:image/png;base64,${x.png}`, alt: `Test image ${x.place}: ${said}` }),
    said,
    el("br"),
    el("small", { class: "note" }, percent(x.percent)),
  );
}
