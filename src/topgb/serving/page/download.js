// Answers as files.
"use strict";

const CSV_COLUMNS = ["path", "model", "start", "end", "class", "name", "probability"];

function csvField(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// A row for each tag: of each stretch where there is a timeline, else of the whole video.
function asCsv(answers) {
  const lines = [CSV_COLUMNS.join(",")];
  for (const { model, videos } of answers) {
    for (const video of videos) {
      const parts = video.timeline.length ? video.timeline : [{ start: 0, end: video.seconds, tags: video.tags }];
      for (const { start, end, tags } of parts) {
        for (const tag of tags) {
          lines.push([video.path, model, start, end, tag.class, tag.name, tag.probability].map(csvField).join(","));
        }
      }
    }
  }
  return lines.join("\r\n") + "\r\n";
}

function save(content, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
