// The page of one run.

showPage((data) => {
  const { arms, layers, latent } = data;
  const best = data.table.rows.flatMap((row, i) => (row.best ? [i] : []));
  const numbers = data.table.heads.map((_, i) => i).slice(1);
  const sections = [
    section("results", "Results", [
      table(
        data.table.heads,
        data.table.rows.map((row) => row.cells),
        numbers,
        best,
      ),
      el(
        "p",
        { class: "note" },
        `At the last epoch; mean ± sample standard deviation over the seeds.${best.length ? " In bold the best top-1 of each optimizer." : ""}`,
      ),
      data.layers
        ? el(
            "p",
            { class: "note" },
            "Never flipped: binary weights whose sign never was another than at initialisation. Silent: those that flipped too long ago, or never.",
          )
        : null,
      data.notes.map((note) => el("p", { class: "note" }, `Note: ${note}.`)),
      pairs(data.about),
    ]),
    section("curves", "Curves", [
      el(
        "p",
        { class: "note" },
        "Lines: mean over the seeds. Bands: ± sample standard deviation, where up to 8 lines are shown. Point at a chart, or focus it and use the arrow keys; the buttons hide lines.",
      ),
      ...charts(data.curves, arms),
    ]),
    layers || latent
      ? section("weights", "Silent weights", weightsSection(layers, latent, arms))
      : null,
    data.answers ? section("confusion", "Confusion", answersSection(data), true) : null,
    data.examples ? section("images", "Test images", examplesSection(data), true) : null,
    data.networks ? section("size", "Size and cost", data.networks.map(networkParts).flat()) : null,
    section(
      "config",
      "Config",
      [
        configParts(data.config),
        data.versions.length
          ? el("details", {}, el("summary", {}, "Versions"), pairs(data.versions))
          : null,
      ],
      true,
    ),
    data.command ? section("command", "Command", el("pre", {}, data.command)) : null,
    data.missing.length
      ? section(
          "missing",
          "Not in this page",
          el(
            "ul",
            {},
            data.missing.map((text) => el("li", {}, text)),
          ),
        )
      : null,
  ].filter((part) => part !== null);
  return [contents(sections), ...sections.map((part) => part.node)];
});
