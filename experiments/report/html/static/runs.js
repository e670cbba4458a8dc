// Several runs beside each other.

showPage((data) => {
  const sections = [
    section(
      "runs",
      "Runs",
      [
        table(data.table.heads, data.table.rows, data.table.numbers),
        data.notes.map((note) => el("p", { class: "note" }, note)),
      ],
      true,
    ),
    data.curves.length
      ? section("curves", "Curves", [
          el(
            "p",
            { class: "note" },
            "Lines: mean over the seeds. Bands: ± sample standard deviation, where up to 8 lines are shown. The buttons hide lines.",
          ),
          ...charts(data.curves, data.arms),
        ])
      : null,
    data.unread.length
      ? section(
          "unread",
          "Not read",
          el(
            "ul",
            {},
            data.unread.map((text) => el("li", {}, text)),
          ),
        )
      : null,
  ].filter((part) => part !== null);
  return [contents(sections), ...sections.map((part) => part.node)];
});
