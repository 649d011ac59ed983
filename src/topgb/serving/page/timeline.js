// A table of classes against time, whose cells jump to their moment.
"use strict";

const MOST_ROWS = 6;

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = (tenths % 600) / 10;
  return `${minutes}:${rest < 10 ? "0" : ""}${rest}`;
}

// The classes that are likeliest in any stretch, likeliest first, with their probability in each.
function timelineRows(stretches) {
  const rows = new Map();
  stretches.forEach(({ tags }, column) => {
    for (const tag of tags) {
      if (!rows.has(tag.class)) rows.set(tag.class, { name: tag.name, cells: stretches.map(() => null) });
      rows.get(tag.class).cells[column] = tag.probability;
    }
  });
  const best = ({ cells }) => Math.max(...cells);
  return [...rows.values()].sort((a, b) => best(b) - best(a)).slice(0, MOST_ROWS);
}

// The table; `jump` is called with the seconds of a cell that is chosen.
function timelineTable(stretches, caption, jump) {
  const table = element("table");
  table.className = "timeline";
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", `${caption}; arrow keys move, Enter jumps`);
  const times = element("tr", "", element("td"));
  stretches.forEach(({ start }, column) => {
    // A column without room for its time is no header, since an empty one names nothing.
    const shown = column % Math.ceil(stretches.length / 12) === 0;
    times.append(shown ? columnHeader(clock(start)) : element("td"));
  });
  const body = element("tbody");
  timelineRows(stretches).forEach(({ name, cells }) => {
    const header = element("th", name);
    header.scope = "row";
    const row = element("tr", "", header);
    cells.forEach((probability, column) => {
      const { start, end } = stretches[column];
      const button = element("button");
      button.type = "button";
      button.tabIndex = -1;
      const said = probability === null ? "not among the tags" : probability.toFixed(2);
      // Alike, since a title that differs is read aloud after the label.
      button.title = `${name}, ${clock(start)} to ${clock(end)}: ${said}`;
      button.setAttribute("aria-label", button.title);
      button.style.setProperty("--p", probability ?? 0);
      button.addEventListener("click", () => jump(start));
      row.append(element("td", "", button));
    });
    body.append(row);
  });
  table.append(element("thead", "", times), body);
  table.addEventListener("keydown", (event) => moveInGrid(event, body));
  const first = body.querySelector("button");
  if (first) first.tabIndex = 0;
  return table;
}

function moveInGrid(event, body) {
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const rows = [...body.rows].map((row) => [...row.querySelectorAll("button")]);
  const y = rows.findIndex((row) => row.includes(document.activeElement));
  if (y < 0) return;
  const x = rows[y].indexOf(document.activeElement);
  let target = null;
  if (event.key in steps) target = rows[y + steps[event.key][0]]?.[x + steps[event.key][1]];
  if (event.key === "Home") target = rows[y][0];
  if (event.key === "End") target = rows[y].at(-1);
  if (!target) return;
  event.preventDefault();
  document.activeElement.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
}

// Marks the stretch in which the player is.
function markMoment(table, stretches, seconds) {
  const now = stretches.findIndex(({ start, end }) => start <= seconds && seconds < end);
  for (const row of table.tBodies[0].rows) {
    [...row.querySelectorAll("td")].forEach((cell, column) => cell.classList.toggle("now", column === now));
  }
}
