// A table of tags with their probabilities, and from where the model's thresholds give them.
"use strict";

function quiet(text) {
  const made = element("p", text);
  made.className = "quiet";
  return made;
}

function columnHeader(text) {
  const made = element("th", text);
  made.scope = "col";
  return made;
}

function tagTable(tags, name, least) {
  const probability = columnHeader("Probability");
  probability.colSpan = 2;
  probability.scope = "colgroup";
  const head = element("tr", "", columnHeader("Tag"), probability);
  if (least) head.append(columnHeader("Given from"));
  const rows = tags.map((tag) => {
    const bar = element("i");
    bar.style.width = `${100 * tag.probability}%`;
    const track = element("div", "", bar);
    track.className = "track";
    track.setAttribute("aria-hidden", "true");
    const number = element("td", tag.probability.toFixed(3));
    number.className = "number";
    const header = element("th", tag.name);
    header.scope = "row";
    const row = element("tr", "", header, number, element("td", "", track));
    if (least) {
      const from = least[tag.class];
      const mark = element("b");
      mark.style.left = `${100 * from}%`;
      track.append(mark);
      const given = tag.probability >= from;
      row.classList.toggle("below", !given);
      const cell = element("td", `${from.toFixed(3)} ${given ? "✓ given" : "below"}`);
      cell.className = "number";
      row.append(cell);
    }
    return row;
  });
  if (!rows.length) return quiet("No tag.");
  return element("table", "", element("caption", `Tags by ${name}`), element("thead", "", head), element("tbody", "", ...rows));
}
